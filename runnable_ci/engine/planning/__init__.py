"""What an invocation does with each step: planned before anything runs, and decided as it continues."""
