"""Functions of branches."""


def first():
    """Return a value."""
    return 1


def second():
    """Return another one."""
    return "two"


def verify(result1, result2, result3):
    """Take what all branches returned."""
    assert (result1, result2, result3) == (1, "two", 3)
    print("all three are there")
