"""Statistics of films by genre, as functions."""

from __future__ import annotations

import csv
from pathlib import Path


def divide() -> list[str]:
    """Write the films of each genre into a file of its own; return the genres that there are."""
    with Path("movies.csv").open(newline="") as file:
        films = list(csv.DictReader(file))
    genres = sorted({genre for film in films for genre in film["genres"].split("|")})
    Path("genres").mkdir(exist_ok=True)
    for genre in genres:
        rows = [f"{it['title']},{it['gross']}\n" for it in films if genre in it["genres"].split("|")]
        Path(f"genres/{genre}.csv").write_text("".join(rows))
    return genres


def compute(genre: str) -> dict:
    """Return the number of films of a genre, their median gross and the best of them."""
    with Path(f"genres/{genre}.csv").open(newline="") as file:
        films = sorted((int(gross), title) for title, gross in csv.reader(file))
    return {"genre": genre, "count": len(films), "median": films[len(films) // 2][0], "best": films[-1][1]}


def join(found: list[dict]) -> int:
    """Print the statistics of all genres; return how many films they have."""
    for one in found:
        print(f"{one['genre']}: {one['count']} films, best {one['best']}")
    return sum(one["count"] for one in found)
