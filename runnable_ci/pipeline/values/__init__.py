"""Values as text, in files and on the command line: how each is read, and as what."""
