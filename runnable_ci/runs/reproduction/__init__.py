"""Whether a run came out again, as the run log has it."""
