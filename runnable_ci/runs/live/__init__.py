"""A run in progress, as it is published while it lives: in parts, with signs that it is still being written."""
