"""Runs of a part of a pipeline: which steps it has, and what it takes from an earlier run."""
