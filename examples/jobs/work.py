"""A function that is all that there is to run."""

from pathlib import Path


def work(size: int = 2, name: str = "world"):
    """Write a file and return two values."""
    Path("squares.csv").write_text("".join(f"{i},{i * i}\n" for i in range(size)))
    print(f"hello {name}")
    return size, size / 4
