"""One run as data: its log, its events, who writes and reads it, and how it travels."""
