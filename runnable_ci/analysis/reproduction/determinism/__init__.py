"""Which step does not come out the same twice on one machine, and why."""
