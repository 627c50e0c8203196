"""The page of a run, kept with its workflow run."""
