"""Runs in a list, a line each."""
