"""Whether a run comes out again: made once more from what is recorded of it, and compared."""
