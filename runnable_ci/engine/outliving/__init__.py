"""What lets a run outlive its machine: it is published while it runs, and ended before its time is over."""
