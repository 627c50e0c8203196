"""Which versions of a published run contain which, by what their manifests say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runnable_ci.runs.causality.versions import newest_versions
from runnable_ci.runs.model import Invocation, RunLog
from runnable_ci.runs.run_identity import INVOCATIONS, INVOCATIONS_MAX, known_invocations

ENDED = "vnd.runnable.ended"


def version(invocations: str, ended: str = "") -> dict[str, str]:
    return {INVOCATIONS: invocations, ENDED: ended}


def log_of(count: int) -> RunLog:
    """A log of so many invocations."""
    invocations = [Invocation(number=n, command="retry", start_time=str(n), identity="i") for n in range(count)]
    return RunLog(run_id="r", invocations=invocations)


def test_a_version_that_has_seen_the_others_stands_for_all() -> None:
    """Whatever the clocks say."""
    assert newest_versions({"one": version("a", "9"), "two": version("a b", "1")}) == ["two"]
    assert newest_versions({"one": version("a b"), "two": version("a c"), "old": version("a")}) == ["one", "two"]
    assert newest_versions({"one": version("b a"), "two": version("a b")}) == ["one", "two"]


def test_where_one_does_not_say_what_it_has_the_last_counts() -> None:
    """An earlier version published it, or its invocations are too many to be named."""
    assert newest_versions({"one": version("a b", "1"), "two": version("", "2")}) == ["two"]
    assert newest_versions({"one": {ENDED: "3"}, "two": {}, "three": {ENDED: "2"}}) == ["one"]
    assert newest_versions({}) == []
    assert known_invocations(log_of(INVOCATIONS_MAX)).count(" ") == INVOCATIONS_MAX - 1
    assert known_invocations(log_of(INVOCATIONS_MAX + 1)) == ""


@given(st.lists(st.frozensets(st.sampled_from("abcdef"), min_size=1), min_size=1))
def test_no_invocation_is_left_out(versions: list[frozenset[str]]) -> None:
    """What is merged has all that any version has, and none of it is contained in another."""
    annotations = {str(number): version(" ".join(sorted(has))) for number, has in enumerate(versions)}
    found = [versions[int(number)] for number in newest_versions(annotations)]
    assert frozenset().union(*found) == frozenset().union(*versions)
    assert not any(one < other for one in found for other in versions)
