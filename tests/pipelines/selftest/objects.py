"""An object that goes from one step to the next, and output beyond ASCII."""


def make():
    """Words, as an object."""
    words = {"größe", "数", "z"}
    print(sorted(words))
    return words


def count(words):
    """How many letters they have."""
    return sum(map(len, words))
