"""Many runs: which there are, what they measured, and what people note of them."""
