"""Jobs of a workflow that share one run: each runs some of its steps, and the last one collects."""
