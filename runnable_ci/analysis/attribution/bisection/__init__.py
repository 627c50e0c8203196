"""The commit between a good and a bad one that made a condition on metrics hold."""
