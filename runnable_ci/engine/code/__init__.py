"""The code that attempts run, as the engine records it."""
