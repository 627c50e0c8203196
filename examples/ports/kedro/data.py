"""What the data catalog did: tables of files."""

from __future__ import annotations

import csv
from pathlib import Path


def read(path: str) -> list[dict]:
    """Return the rows of a CSV file."""
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))
