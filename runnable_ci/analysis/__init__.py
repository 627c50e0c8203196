"""What can be said of runs: what differs between them, how they are shown, whether they come out again."""
