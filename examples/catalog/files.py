"""Functions that write files."""

from pathlib import Path


def write():
    """Write a table and a text in a folder."""
    Path("df.csv").write_text("a,b\n1,2\n")
    Path("data").mkdir(exist_ok=True)
    Path("data/data.txt").write_text("hello\n")
