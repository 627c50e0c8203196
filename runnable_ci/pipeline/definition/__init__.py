"""A pipeline file as a program writes it: the standard library only, for the user's own interpreter."""
