"""Where attempts ran."""
