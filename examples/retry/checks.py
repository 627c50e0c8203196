"""Functions of which one fails until something is corrected."""

import os


def increment(number: int):
    """Return the next number."""
    return number + 1


def check(number: int):
    """Fail unless the service, of which a variable tells, is up."""
    if os.environ.get("SERVICE") != "up":
        raise ConnectionError("the service is down")
    print(f"checked {number}")


def mistaken():
    """Fail by a mistake in the code."""
    return 1 / ZERO


ZERO = 0
