"""Notebook steps: a Jupyter notebook, executed once in the user's own environment."""
