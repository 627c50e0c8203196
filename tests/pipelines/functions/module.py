"""Functions of all sorts."""

import functools
from json import dumps as imported


def plain(rate, *, depth=3):
    """A comment in here counts."""
    return rate * depth


@functools.cache
def decorated(rate):
    return rate


async def later(rate, /, depth):
    return rate


class Model:
    @staticmethod
    def fit(X):
        return X


def everything(*args, **kwargs):
    return kwargs


made = functools.partial(plain, 2)

try:
    import tomllib
except ImportError:
    tomllib = None
else:

    def in_else():
        return 1


if made:

    def in_if():
        return 1


try:
    pass
except* ValueError:

    def in_except_star():
        return 1


match made:
    case None:

        def in_match():
            return 1


for in_for in ():
    pass

with open(__file__) as in_with:
    first = second = 1

if in_walrus := 3:
    annotated: int = 3
