"""Functions that fail, and others."""


def fail():
    """Fail as code does."""
    raise RuntimeError("the data is not there")


def greet():
    """Print a greeting."""
    print("hello from python")
