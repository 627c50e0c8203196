"""The loop: preflight, plan, run, attempt; resume is the same loop on a log that has attempts already."""
