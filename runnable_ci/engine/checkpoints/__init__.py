"""Checkpoints of steps while attempts run: kept, restored, and what speaks against one."""
