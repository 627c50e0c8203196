"""Pipelines of other tools as pipeline files: what has a counterpart is written, what has none is said in comments."""
