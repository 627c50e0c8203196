"""Which listings of a folder a Python interpreter's importer explains: it lists a folder of its path to find modules.

Without this, each new file beside a script would be a change of every step that runs it. With too much of it, a script
that counts the files beside it would be reused wrongly. So a listing is explained only where one surely happened.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import Final

# Built in or frozen into the interpreter since 3.11: to import these lists no folder. Source: CPython, Python/frozen.c.
_WITHOUT_LISTING: Final = frozenset(
    word
    for line in (
        "sys builtins os io abc codecs site stat posixpath genericpath posix time marshal errno itertools signal gc",
        "atexit importlib runpy zipimport __future__ faulthandler pwd array binascii cmath fcntl grp math select",
        "syslog termios unicodedata zlib pyexpat _abc _bisect _blake2 _codecs _collections _collections_abc _csv",
        "_datetime _elementtree _functools _heapq _imp _io _json _locale _md5 _operator _pickle _posixsubprocess",
        "_random _sha1 _sha2 _sha256 _sha3 _sha512 _signal _socket _sre _stat _statistics _string _struct _symtable",
        "_thread _tracemalloc _warnings _weakref",
    )
    for word in line.split()
)
_LISTING_WORDS: Final = re.compile(
    rb"listdir|scandir|glob|walk|iterdir|\b(ls|find|dir)\b|\*|getoutput|popen|system|exec|subprocess"
)


def surely_lists_its_folder(source: bytes) -> bool:
    """Whether a script that was started surely had the importer list the folder it lies in, by its first imports."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in tree.body:
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(module=str() as module, level=0):
                names = [module]
            case ast.Expr(value=ast.Constant()):
                continue  # a docstring
            case _:
                return False  # what comes before the first import may list, or leave
        if any(name.partition(".")[0] not in _WITHOUT_LISTING for name in names):
            return True
    return False


def is_explained(count: int, stirred: int, scripts: Iterable[bytes], sources: Iterable[bytes], command: bytes) -> bool:
    """Whether an importer explains all listings of a folder.

    `count` listings were seen, and `stirred` times a name came or went in the folder, after which an importer may list
    it again. `scripts` are the texts of the scripts in that folder that were opened, `sources` those of all modules of
    the workspace that were opened, `command` the step's own.
    """
    sure = sum(surely_lists_its_folder(script) for script in scripts)
    if count <= sure:
        return True
    if not sure or count > sure + stirred + 1:
        return False
    # What came in between lets an importer look again; so that this hides no other's look, nobody may speak of one.
    return not any(_LISTING_WORDS.search(text) for text in (*sources, command))
