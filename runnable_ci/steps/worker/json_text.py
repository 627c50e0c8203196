"""JSON text to values and back, without what makes `import json` slow.

That import takes `re` along and costs more than half of a bare interpreter's start; its C half does all the work.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:
    import _json
except ImportError:  # an interpreter that is not CPython
    _json = None  # type: ignore[assignment]


class _Decoder:
    """The settings that the C scanner reads from its decoder."""

    strict = True
    object_hook = object_pairs_hook = array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def loads(text: str) -> Any:
    """The value that JSON text without leading space stands for."""
    if _json is None:
        import json

        return json.loads(text)
    decoder: Any = _Decoder
    return _json.make_scanner(decoder)(text, 0)[0]


def dumps(value: Any) -> str:
    """The JSON text, in ASCII, of a value made of JSON's own types."""
    if _json is None:
        import json

        return json.dumps(value)
    escape = _json.encode_basestring_ascii
    return "".join(_json.make_encoder(None, repr, escape, None, ": ", ", ", False, False, False)(value, 0))
