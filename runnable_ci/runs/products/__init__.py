"""Which files of the workspace steps made: seen, set aside before a step runs, and undone where it did not succeed."""
