"""What people note of a run after it has ended."""
