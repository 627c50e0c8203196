"""Functions that know nothing of pipelines."""

import json
import sys


def load(rows):
    """Return points of a line, as a list of pairs."""
    return [[x, 2 * x + 1] for x in range(rows)]


def fit(degree, points):
    """Return the mean error of a constant (0) or of the line through the ends (1)."""
    first, last = points[0], points[-1]
    slope = (last[1] - first[1]) / (last[0] - first[0]) if degree else 0
    return sum(abs(first[1] + slope * (x - first[0]) - y) for x, y in points) / len(points)


def best(error_0, error_1):
    """Return the smaller error."""
    return min(error_0, error_1)


if __name__ == "__main__":
    print(f"error_{sys.argv[1]}={fit(int(sys.argv[1]), json.loads(sys.argv[2]))}")
