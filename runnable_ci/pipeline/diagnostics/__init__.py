"""Where in the pipeline file a mistake is, and what would be right there."""
