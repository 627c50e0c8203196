"""Which versions of a published run are not contained in another one, as their manifests tell. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from runnable_ci.runs.run_identity import INVOCATIONS


def newest_versions(annotations: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return those of a run's manifests, digest → annotations, of which no other one has all invocations and more.

    No clock is asked. What an earlier version published does not say which ones it has: where there is any such, the
    manifest that was written last counts.
    """
    known = {digest: frozenset(found.get(INVOCATIONS, "").split()) for digest, found in annotations.items()}
    if not all(known.values()):
        return [max(annotations, key=lambda digest: (_written(annotations[digest]), digest))] if annotations else []
    return [digest for digest, has in known.items() if not any(has < other for other in known.values())]


def _written(annotations: Mapping[str, str]) -> str:
    """Return when a version was written, as it says."""
    return annotations.get("vnd.runnable.ended") or annotations.get("org.opencontainers.image.created", "")
