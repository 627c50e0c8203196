"""Functions that know nothing of pipelines."""


def greet(name="world"):
    """Print a greeting."""
    print(f"hello {name}")
