"""One module a verb: plain functions that get their collaborators as arguments."""
