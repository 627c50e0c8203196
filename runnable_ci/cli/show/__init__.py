"""Commands that look at runs: which there are, what one did and why, what its steps wrote."""
