"""Attempts on machines that share no folder with this one: what they get and what they made goes by the registry."""
