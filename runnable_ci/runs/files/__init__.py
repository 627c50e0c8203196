"""What lies in a folder, and how it is kept: names that globs find, links, empty folders, modes and times."""
