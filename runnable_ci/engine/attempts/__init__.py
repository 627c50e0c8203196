"""What belongs to an attempt at a step, beside its loop."""
