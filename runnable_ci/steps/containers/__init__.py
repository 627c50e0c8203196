"""Steps in containers: which engine is there, which image exactly, and the command that runs a step in it."""
