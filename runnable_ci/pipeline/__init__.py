"""The pipeline file: as written, as resolved, and what may stand in it."""
