"""Functions that take parameters in several ways, and give some back."""

import argparse
from dataclasses import dataclass


@dataclass
class Model:
    """The parameters of a model."""

    depth: int
    name: str


def typed(integer: int, ratio: float, text: str, model: Model, envvar: str):
    """Take values as their annotations say."""
    assert (integer, ratio, text, envvar) == (1, 3.14, "hello", "from env")
    assert model == Model(10, "a forest")


def all_of_them(**values):
    """Take all values as they are."""
    assert values["model"] == {"depth": 10, "name": "a forest"}


def namespace(args: argparse.Namespace):
    """Take all values as a script with argparse does."""
    assert args.text == "hello"


def fit(depth: int):
    """Return a value, an object that only Python can keep, and a number to compare runs by."""
    return depth * 2, Model(depth, "fitted"), 0.5


def predict(size, fitted: Model, score):
    """Take what `fit` returned."""
    assert (size, fitted.name, score) == (6, "fitted", 0.5)
    print(f"{fitted.name} with {size} leaves")
