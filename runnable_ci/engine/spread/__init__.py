"""One run that several jobs share: each runs some of its steps, and the last one collects what they did."""
