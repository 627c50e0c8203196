"""A recorded work tree made again."""
