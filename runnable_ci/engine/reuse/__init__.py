"""Reuse across runs: a result of another run takes a step's place where all that it was made from is proved equal."""
