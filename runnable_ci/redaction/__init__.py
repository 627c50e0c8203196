"""What takes secrets out of text, and tells which files and variables hold some."""
