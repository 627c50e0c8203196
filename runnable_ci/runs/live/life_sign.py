"""The sign of life of who writes a run: until when the next one comes, and the note of one that came with a pull.

The times are those of the registry's clock, as the writer and the reader see it in its answers: no two machines need to
agree on the time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from runnable_ci.runs.paths import IN_PROGRESS, run_folder
from runnable_ci.store.local import Layout
from runnable_ci.util.bounded_json import parse_own, with_check
from runnable_ci.util.files import write_whole

ALIVE: Final = "vnd.runnable.alive"
"""Of a manifest: when it was written."""
ALIVE_UNTIL: Final = "vnd.runnable.alive-until"
"""When it will have been replaced, unless its writer is gone."""
RENEWED_AFTER_S: Final = 120.0
RENEWED_AFTER_MAX_S: Final = 600.0
"""While a step takes long signs become rarer: a tenth of the time since anything was published, at most this."""
_SPARE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class LifeSign:
    """When a run was written, and until when another part of it is expected."""

    at_s: float
    """In seconds since 1970."""
    until_s: float

    @classmethod
    def next_after(cls, silent_s: float, *, now_s: float) -> Self:
        """Return the sign to give now, where nothing was published for so long."""
        return cls(now_s, now_s + 1.5 * renewed_after_s(silent_s) + _SPARE_S)

    @classmethod
    def of(cls, annotations: Mapping[str, str]) -> Self | None:
        """Return what a manifest says; None where it is of a run that nobody writes."""
        try:
            at, until = (datetime.fromisoformat(annotations[key]) for key in (ALIVE, ALIVE_UNTIL))
            return cls(at.timestamp(), until.timestamp())
        except (KeyError, ValueError, OverflowError):
            return None

    def annotations(self) -> dict[str, str]:
        """Return how it stands in a manifest."""
        return {ALIVE: _text(self.at_s), ALIVE_UNTIL: _text(self.until_s)}

    def is_alive(self, now_s: float) -> bool:
        """Return whether its writer is to be expected to write on."""
        return now_s < self.until_s

    @property
    def next_by(self) -> str:
        """The time of day until which the next one comes."""
        return _shown(self.until_s).partition(" ")[2]

    def __str__(self) -> str:
        return f"last sign of life at {_shown(self.at_s)}, next one by {_shown(self.until_s)}"


@dataclass(frozen=True, slots=True)
class WriterElsewhere:
    """Who writes a run that was pulled in progress."""

    sign: LifeSign
    writer: str
    registry: str


def renewed_after_s(silent_s: float) -> float:
    """Return after how long a sign is to be renewed where nothing was published for so long."""
    return min(RENEWED_AFTER_MAX_S, max(RENEWED_AFTER_S, silent_s / 10))


def note_writer(layout: Layout, run_id: str, writer: WriterElsewhere | None) -> None:
    """Note beside a pulled run that it is being written elsewhere, or that it is not."""
    path = run_folder(layout, run_id) / IN_PROGRESS
    if writer is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "at": writer.sign.at_s,
        "until": writer.sign.until_s,
        "writer": writer.writer,
        "registry": writer.registry,
    }
    write_whole(path, with_check(json.dumps(document).encode()), through=layout.temporaries)


def writer_elsewhere(layout: Layout, run_id: str, *, now_s: float) -> WriterElsewhere | None:
    """Return who was writing a run when it was pulled, as long as that is to be believed."""
    noted = noted_writer(layout, run_id)
    return noted if noted and noted.sign.is_alive(now_s) else None


def noted_writer(layout: Layout, run_id: str) -> WriterElsewhere | None:
    """Return who was writing a run when it was pulled; None where nobody was, or the note cannot be read."""
    try:
        found = parse_own((run_folder(layout, run_id) / IN_PROGRESS).read_bytes())
        sign = LifeSign(float(found["at"]), float(found["until"]))
        return WriterElsewhere(sign, str(found["writer"]), str(found["registry"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _text(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).isoformat(timespec="milliseconds")


def _shown(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
