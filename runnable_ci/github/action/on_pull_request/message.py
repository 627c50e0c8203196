"""What is said on a pull request, kept from one step of the action to the next: by then the page has its address."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runnable_ci.github.api.pull_requests import COMMENT_MAX, Conclusion
from runnable_ci.util.files import write_whole

_MAX_BYTES: Final = 1 << 20
_LINK: Final = re.compile(r"[A-Za-z0-9:/._~-]{1,1000}")
"""An address that is nothing else in Markdown."""


class _Prepared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Check(_Prepared):
    """The check on the pull request's commit."""

    name: str
    sha: str
    conclusion: Conclusion
    title: str


class Message(_Prepared):
    """A comment, a check or both, without secrets."""

    number: int = Field(gt=0)
    marker: str
    text: str = Field(max_length=COMMENT_MAX)
    """Begins with the marker; its last line has links."""
    is_comment: bool
    check: Check | None
    page: str
    """The workflow run's."""

    def keep(self, folder: Path) -> Path:
        """Write it into a new file of a folder."""
        file = folder / f"pull-request-{os.urandom(8).hex()}.json"
        write_whole(file, self.model_dump_json().encode(), through=folder)
        return file

    def text_with(self, report: str) -> str:
        """Return the text with a link to the report; without one where there is none, or no room for it."""
        text = f"{self.text} · [report]({report})" if report else self.text
        return text if len(text) <= COMMENT_MAX else self.text


def take(file: Path) -> Message | None:
    """Return what was kept, once; None where it is gone, or something else is in its place."""
    try:
        with file.open("rb") as opened:
            found = Message.model_validate_json(opened.read(_MAX_BYTES))
        file.unlink()
    except (OSError, ValidationError):
        return None
    return found


def report_link(url: str, server_url: str) -> str:
    """Return the address of an uploaded page; empty for what is none of this server."""
    return url if url.startswith(f"{server_url}/") and _LINK.fullmatch(url) else ""
