"""The code that attempts ran, of logs of each version: what differed from the commit, and where it is kept. Pure.

A run log has each state of the code once. A state may build on another one of the same run, and then says only what is
different from that: a run of many steps grows by what is new.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from runnable_ci.runs.code_model import CodeIdentity, CodeState
from runnable_ci.runs.model import Invocation, RunLog, StepAttempt

GONE: Final = ("", "")
"""The change of a path that is as in the commit again, where the state that this one builds on has a change."""
CodeHolder = StepAttempt | Invocation
"""What has code: an attempt, or an invocation that only took results."""


def code_state_of(log: RunLog, attempt: CodeHolder, known: dict[str, CodeState] | None = None) -> CodeState | None:
    """Return the whole state of the code that an attempt ran; None where nothing is known of it."""
    if attempt.code_state in log.code_states:
        return whole(log.code_states, attempt.code_state, known)
    return _of_identity(attempt.code_identities[0]) if attempt.code_identities else None


def whole(table: Mapping[str, CodeState], key: str, known: dict[str, CodeState] | None = None) -> CodeState:
    """Return a state that says all, with the bundles of those that it builds on.

    What is `known` of other states is not put together again, and this one is among it then.
    """
    found = {} if known is None else known
    for at in reversed(list(_chain(table, key, found))):
        state = table[at]
        earlier = found.get(state.base, CodeState())
        changes = {path: change for path, change in (earlier.changes | state.changes).items() if change != GONE}
        omitted = {path: reason for path, reason in (earlier.omitted | state.omitted).items() if reason}
        update = {"base": "", "changes": changes, "omitted": omitted, "bundles": earlier.bundles | state.bundles}
        found[at] = state.model_copy(update=update)
    return found[key]


def difference(earlier: CodeState, key: str, state: CodeState) -> CodeState:
    """Return a whole state as what is different from another whole one, which has that key."""
    changes = dict(state.changes.items() - earlier.changes.items())
    changes |= dict.fromkeys(earlier.changes.keys() - state.changes.keys(), GONE)
    omitted = dict(state.omitted.items() - earlier.omitted.items())
    omitted |= dict.fromkeys(earlier.omitted.keys() - state.omitted.keys(), "")
    return state.model_copy(update={"base": key, "changes": changes, "omitted": omitted})


def states(log: RunLog, *, invocation: int | None = None) -> list[CodeState]:
    """Return the whole states of all attempts, or of those of an invocation: each once, the oldest first."""
    found: dict[str, CodeState] = {}
    known: dict[str, CodeState] = {}
    for holder in _holders(log, invocation):
        key = state_key(holder)
        if key not in found and (state := code_state_of(log, holder, known)):
            found[key] = state
    return list(found.values())


def state_key(holder: CodeHolder) -> str:
    """Return what is the same for attempts of a run that ran the same code."""
    identity = holder.code_identities[0] if holder.code_identities else CodeIdentity()
    return holder.code_state or f"{identity.code_identifier} {identity.snapshot} {identity.changes}"


def _holders(log: RunLog, invocation: int | None) -> list[CodeHolder]:
    """Return the attempts of a run, or of an invocation, and what only took results, the oldest first."""
    known: list[tuple[int, str, CodeHolder]] = [
        *((a.invocation, a.start_time, a) for step in log.steps.values() for a in step.attempts),
        *((one.number, one.start_time, one) for one in log.invocations if one.code_identities),
    ]
    known.sort(key=lambda found: found[:2])
    return [holder for number, _, holder in known if invocation in (None, number)]


def _chain(table: Mapping[str, CodeState], key: str, known: Mapping[str, CodeState]) -> Iterator[str]:
    """Yield a state and those that it builds on, the newest first, as far as they are not known."""
    seen = set[str]()
    while key in table and key not in seen and key not in known:
        seen.add(key)
        yield key
        key = table[key].base


def _of_identity(identity: CodeIdentity) -> CodeState:
    """Return the state as earlier versions recorded it, with each attempt."""
    omitted = dict(line.partition(": ")[::2] for line in identity.snapshot_omitted)
    return CodeState(
        commit=identity.code_identifier,
        changes=identity.changes,
        omitted=omitted,
        snapshot=identity.snapshot,
        snapshot_size=identity.snapshot_size,
        untracked=identity.snapshot_untracked,
    )


def kept_untracked(state: CodeState) -> list[str]:
    """Return the untracked files that are kept with a state."""
    if state.untracked is not None:
        return state.untracked
    if not (state.snapshot or state.kept):
        return []
    return [name for name, (kind, _) in state.changes.items() if kind == "untracked" and name not in state.omitted]


def why_unknown(log: RunLog, attempt: CodeHolder) -> str:
    """Return why it is not known which code an attempt ran; empty where it is."""
    identity = attempt.code_identities[0] if attempt.code_identities else CodeIdentity()
    state = code_state_of(log, attempt) or CodeState()
    is_known = identity.code_identifier_dependable or state.changes or state.unknown or state.tree
    return "" if is_known else identity.code_identifier_message


def unknown_code(log: RunLog) -> str:
    """Return why it is not known which code the newest invocation ran; empty where it is of each attempt."""
    newest = log.invocations[-1].number if log.invocations else 0
    return next(filter(None, (why_unknown(log, holder) for holder in _holders(log, newest))), "")


def unpublished(log: RunLog, *, invocation: int | None = None) -> str:
    """Return a warning where no branch of a remote was known to have the newest commit; empty where one was."""
    found = states(log, invocation=invocation)
    if not found or not found[-1].unpublished:
        return ""
    return f"no branch of a remote is known to have commit {found[-1].commit[:12]}: push it, so that others find it"
