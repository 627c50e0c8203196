"""The pages of a registry's list of tags."""

from __future__ import annotations

import json
import re
from urllib.parse import urlencode

from runnable_ci.errors import RegistryProtocolError
from runnable_ci.util.responses import Response

TAGS_A_PAGE = 10_000
NEXT_LINK = re.compile(r"<([^<>]{1,2000})>\s*;[^,]*\brel=\"?next\"?", re.IGNORECASE)


def listed_in(response: Response, label: str) -> list[str]:
    """Return the tags of a page, and what else it lists as text. Raises `RegistryProtocolError` for another shape."""
    try:
        tags = json.loads(response.body)["tags"] or []
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RegistryProtocolError(f"the tag list of {label} cannot be read", hint="is it an OCI registry?") from error
    if not isinstance(tags, list):
        raise RegistryProtocolError(f"the tag list of {label} is none")
    return [tag for tag in tags if isinstance(tag, str)]


def next_page(response: Response, last: str) -> str:
    """Return the next page of the tags, where there is one: whatever server the link names, by our own URL."""
    link = NEXT_LINK.search(response.headers.get("Link", "")[:8192])
    if link is None:
        return ""
    query = link[1].partition("#")[0].partition("?")[2]
    return f"tags/list?{query or urlencode({'n': TAGS_A_PAGE, 'last': last})}"
