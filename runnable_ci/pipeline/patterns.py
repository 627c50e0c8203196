"""The globs of `catalog`: which names one matches, and whether two can match one name. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import product
from pathlib import PurePosixPath

ANY_FOLDERS = "**"
ANY_TEXT = "***"
"""Within a name, in patterns of `as_glob`: any text, which may have a `/` and so become several names."""
_TEXTS_MAX = 4
_PARTS = re.compile(r"\[!?+\]?+[^\]]*+\]|.", re.DOTALL)
"""A class or one character, as `fnmatch` reads them: a bracket that is never closed is a character."""
_EXPRESSION = re.compile(r"\$\{\{.*?\}\}", re.DOTALL)
_WHOLE_NAME = re.compile(r"(?<![^/])\$\{\{[^{}]*\}\}(?![^/])")
_FIRST_WILDCARD = re.compile(r"[*?\[]")


def matches(pattern: str, name: str) -> bool:
    """Return whether a glob of `catalog` means this file: it matches the file, or a folder above it."""
    if not _FIRST_WILDCARD.search(pattern) and not _may_be_below(str(PurePosixPath(pattern)), name):
        return False
    parts = PurePosixPath(name).parts
    return any(_match(PurePosixPath(one).parts, parts) for one in globs_of(pattern))


def _may_be_below(plain: str, name: str) -> bool:
    """Return whether a name can be that of a pattern without wildcards, or below it: at a glance, for most cannot."""
    return name.startswith((plain, "./")) or plain == "." or "//" in name or "/./" in name


def globs_of(pattern: str) -> list[str]:
    """Return the globs that match together what a pattern of `as_glob` does, the first as if no value had a `/`."""
    if ANY_TEXT not in pattern:
        return [pattern]
    first, *others = pattern.split(ANY_TEXT)
    if len(others) > _TEXTS_MAX:  # more than these, but not twice as many for each of them
        others = others[-1:]
    fillings = product(("*", f"*/{ANY_FOLDERS}/*"), repeat=len(others))
    return [first + "".join(map("".join, zip(filling, others, strict=True))) for filling in fillings]


def literal_of(pattern: str) -> str:
    """Return the glob of the one name that a pattern with brackets spells; empty where no file can have that name.

    Where a file of that name is there, it is what the pattern means: `report [1].txt` is a file more often than a
    class of one character.
    """
    if "[" not in pattern:
        return ""
    parts = PurePosixPath(pattern).parts
    if any("*" in part or "?" in part for part in parts if "[" in part):
        return ""
    return "/".join(part.replace("[", "[[]") for part in parts)


def select(pattern: str, names: Iterable[str]) -> list[str]:
    """Return which of these names a glob means: the one that it spells, where that is there, else what it matches."""
    among = list(names)
    literal = literal_of(pattern)
    spelled = [name for name in among if matches(literal, name)] if literal else []
    if not spelled and not _FIRST_WILDCARD.search(pattern):
        plain = str(PurePosixPath(pattern))
        among = [name for name in among if _may_be_below(plain, name)]
    return spelled or [name for name in among if matches(pattern, name)]


def may_name(pattern: str, name: str) -> bool:
    """Return whether a glob can mean this file, whatever other files there are."""
    literal = literal_of(pattern)
    return matches(pattern, name) or (bool(literal) and matches(literal, name))


def _match(pattern: tuple[str, ...], name: tuple[str, ...]) -> bool:
    if not pattern:
        return True
    if pattern[0] == ANY_FOLDERS:
        return any(_match(pattern[1:], name[i:]) for i in range(len(name) + 1))
    if not name:
        return False
    one = pattern[0]
    is_alike = fnmatchcase(name[0], one) if _FIRST_WILDCARD.search(one) else name[0] == one
    return is_alike and _match(pattern[1:], name[1:])


def can_overlap(one: str, other: str) -> bool:
    """Return whether there is a name that both globs match."""
    # What a glob matches may be a folder: it means all names below it too.
    return any(
        _can_meet(
            [*PurePosixPath(first).parts, ANY_FOLDERS],
            [*PurePosixPath(second).parts, ANY_FOLDERS],
            wildcard=ANY_FOLDERS,
            share=_components_overlap,
        )
        for first, second in product(_meanings(one), _meanings(other))
    )


def _meanings(pattern: str) -> list[str]:
    return [meaning for glob in globs_of(pattern) for meaning in (glob, literal_of(glob)) if meaning]


def literal_prefix(pattern: str) -> str:
    """Return how every name that a glob matches begins, once a slash is put behind it.

    Two globs can overlap only where one's prefix begins with the other's.
    """
    return _FIRST_WILDCARD.split(f"{PurePosixPath(pattern)}/", maxsplit=1)[0]


def _components_overlap(one: str, other: str) -> bool:
    return one == other or _can_meet(
        _PARTS.findall(one), _PARTS.findall(other), wildcard="*", share=_characters_overlap
    )


def _characters_overlap(one: str, other: str) -> bool:
    """Return whether a character is in both of two classes, or is one of them."""
    # A class is made of ranges, or is what they leave out: where two meet at all they do at, or beside, an end of one.
    ends = {chr(code) for end, step in product(one + other, (-1, 0, 1)) if 0 < (code := ord(end) + step) < 0x110000}
    return any(fnmatchcase(end, one) and fnmatchcase(end, other) for end in ends - {"/"})


def _can_meet(one: Sequence[str], other: Sequence[str], *, wildcard: str, share: Callable[[str, str], bool]) -> bool:
    """Return whether a sequence fits both of two patterns of it, in which a `wildcard` matches any number of parts.

    `share(a, b)` tells whether a part fits both `a` and `b`. Which places can be reached in `other` is kept while `one`
    is walked through, so that the work is the product of both lengths.
    """
    reached = _closed({0}, other, wildcard)
    for part in one:
        if part == wildcard:
            reached = set(range(min(reached), len(other) + 1)) if reached else reached
            continue
        stepped = {
            place + (other[place] != wildcard)
            for place in reached
            if place < len(other) and (other[place] == wildcard or share(part, other[place]))
        }
        reached = _closed(stepped, other, wildcard)
    return len(other) in reached


def _closed(places: set[int], pattern: Sequence[str], wildcard: str) -> set[int]:
    """Return the places and those behind wildcards that match nothing."""
    found = set(places)
    for place in range(len(pattern)):
        if place in found and pattern[place] == wildcard:
            found.add(place + 1)
    return found


def as_glob(text: str) -> str:
    """Return a pattern of all that a path may become whose expressions have no value yet.

    A value may have a `/` and so become several names.
    """
    return _EXPRESSION.sub(ANY_TEXT, _WHOLE_NAME.sub(ANY_FOLDERS, text)) if "${{" in text else text
