"""Attempts that run elsewhere, as the store that both sides share knows them: what is in flight, and its fragments."""
