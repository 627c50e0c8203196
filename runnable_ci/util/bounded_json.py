"""JSON of others, read within bounds: what it becomes in memory is in proportion to its bytes. Pure.

JSON of our own begins with a check that finds damage. A limit on bytes is none on memory: three of them, `{},`, may
become a record of two thousand.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import from_json

ELEMENTS_MAX = 16_000_000
"""More than an honest run log of 256 MiB has; so many of the smallest take some 600 MB."""
_FREE_FIELDS = 5000
_CHECK = re.compile(rb'\{"check":"([0-9a-f]{16})",')
_CHECK_BYTES = len(b'{"check":"0123456789abcdef",')
_ENTRIES_AT_ONCE = 1000


def parse_json(document: bytes, *, elements_max: int = ELEMENTS_MAX) -> Any:
    """Return the value of a JSON document. Raises `ValueError`, also where it has too many elements or is too deep."""
    require_few_elements(document, elements_max)
    return from_json(document)


def require_few_elements(document: bytes, elements_max: int) -> None:
    """Raise `ValueError` for a JSON document of more elements, before it is parsed.

    They are counted by the marks before and between them; those in texts count too.
    """
    if sum(map(document.count, (b",", b"[", b"{"))) > elements_max:
        raise ValueError(f"it has more than {elements_max:,} elements")


def indentation(value: Any, depth: int = 1) -> int:
    """Return how many bytes go before the lines of a value that is written with one space for each level."""
    if not isinstance(value, dict | list):
        return 0
    inner = value if isinstance(value, list) else value.values()
    return len(inner) * depth + sum(indentation(item, depth + 1) for item in inner if isinstance(item, dict | list))


def with_check(document: bytes, before: str = "") -> bytes:
    """Return an object that is not empty, as JSON, with a check for its first field: over itself, and `before`."""
    return b'{"check":"%s",%s' % (check_of(document, before).encode(), document[1:])


def check_of(document: bytes, before: str = "") -> str:
    """Return the check of an object, whether or not it begins with one, and `before`, which may be an earlier check."""
    return hashlib.sha256(before.encode() + without_check(document)[1:]).hexdigest()[:16]


def stated_check(document: bytes) -> str:
    """Return the check with which an object begins; empty for one of an earlier version."""
    found = _CHECK.match(document)
    return found[1].decode() if found else ""


def without_check(document: bytes) -> bytes:
    """Return an object as it was before it had a check."""
    return b"{" + document[_CHECK_BYTES:] if _CHECK.match(document) else document


def parse_own(document: bytes) -> Any:
    """Return an object that this program wrote as JSON. Raises `ValueError`, also where it has not the check it states.

    One of an earlier version states none.
    """
    if document[:1] != b"{" or stated_check(document) not in ("", check_of(document)):
        raise ValueError("it was changed since it was written")
    return from_json(document)


class RecordError(Exception):
    """A document cannot become records. Not a `ValueError`, so that pydantic stops at the first: it would keep all."""


@dataclass(slots=True)
class Allowance:
    """How many fields the records of a document may have together; what it leaves out of them counts as well."""

    fields: int = _FREE_FIELDS

    def grow(self, size_bytes: int, *, bytes_per_field: int) -> None:
        """Allow what so many more bytes may hold."""
        self.fields += size_bytes // bytes_per_field

    def spend(self, fields: int) -> None:
        """Count a record that is about to be made. Raises `RecordError`."""
        self.fields -= fields
        if self.fields < 0:
            raise RecordError("it holds more records than its size allows")


def first_problem(error: ValidationError) -> str:
    """Return what is wrong first, and where."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def _entry_by_entry(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    if not isinstance(value, dict) or len(value) <= _ENTRIES_AT_ONCE:
        return validate(value)
    entries, found = iter(value.items()), {}
    while part := dict(islice(entries, _ENTRIES_AT_ONCE)):
        found.update(validate(part))
    return found


LARGE_TABLE = WrapValidator(_entry_by_entry)
"""For a table of many plain values: where some are wrong, the first thousand are enough to say so."""


class Record(BaseModel):
    """A part of a document, such as a run log; fields that this version does not know are kept.

    With an `Allowance` for a context it is read within that, and up to the first mistake.
    """

    model_config = ConfigDict(extra="allow", defer_build=True)

    @classmethod
    def model_rebuild(cls, **options: Any) -> bool | None:
        """Prepare the records that this one has before it: else each of them is prepared once more where it is used."""
        if cls.__pydantic_complete__ and not options.get("force"):
            return None
        for part in _records_in(field.annotation for field in cls.model_fields.values()):
            part.model_rebuild(**options)
        return super().model_rebuild(**options)

    @model_validator(mode="wrap")
    @classmethod
    def _within_bounds(cls, value: Any, validate: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if not isinstance(info.context, Allowance):
            return validate(value)
        info.context.spend(len(cls.__pydantic_fields__))
        try:
            return validate(value)
        except ValidationError as e:
            raise RecordError(f"{cls.__name__}: {first_problem(e)}") from None


def _records_in(annotations: Iterable[Any]) -> Iterator[type[Record]]:
    for annotation in annotations:
        if isinstance(annotation, type) and issubclass(annotation, Record):
            yield annotation
        else:
            yield from _records_in(get_args(annotation))
