"""GitHub's REST API: where, as whom, and what is asked of it."""
