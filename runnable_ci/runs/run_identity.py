"""Run ids that people can say, and which run a log is of: its id does not tell that, since people choose it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from runnable_ci.runs.model import Invocation, RunLog, StepAttempt

ADJECTIVES = (
    *("able", "agile", "amber", "apt", "avid", "bold", "brave", "bright", "brisk", "calm", "candid", "clear", "clever"),
    *("cool", "cosmic", "crisp", "daring", "deft", "eager", "early", "easy", "epic", "exact", "fair", "fast", "fine"),
    *("firm", "fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "good", "grand", "great", "handy"),
    *("happy", "hardy", "honest", "humble", "ideal", "jolly", "just", "keen", "kind", "lively", "loyal", "lucid"),
    *("lucky", "mellow", "merry", "mighty", "modest", "neat", "nimble", "noble", "open", "patient", "plain", "polite"),
    *("proud", "quick", "quiet", "ready", "robust", "royal", "serene", "sharp", "silent", "simple", "smart", "snug"),
    *("solid", "sound", "spry", "stable", "steady", "strong", "sunny", "sure", "swift", "tidy", "tranquil", "true"),
    *("trusty", "upbeat", "valid", "vast", "vivid", "warm", "wise", "witty", "young", "zesty"),
)
SCIENTISTS = (
    *("abel", "agnesi", "ampere", "archimedes", "babbage", "banach", "bartik", "bayes", "bell", "bernoulli", "bohr"),
    *("boole", "born", "bose", "brahe", "cannon", "cantor", "carson", "cauchy", "chandra", "church", "clarke", "cori"),
    *("curie", "darwin", "descartes", "dijkstra", "dirac", "easley", "edison", "einstein", "elion", "erdos", "euclid"),
    *("euler", "faraday", "fermat", "fermi", "fisher", "fourier", "franklin", "galileo", "galois", "gauss", "germain"),
    *("goodall", "hamilton", "hawking", "heisenberg", "hermite", "herschel", "hilbert", "hodgkin", "hopper", "hypatia"),
    *("jackson", "jacobi", "johnson", "joliot", "joule", "kalam", "keller", "kepler", "khorana", "kilby", "klein"),
    *("knuth", "kovalevskaya", "lagrange", "lamarr", "laplace", "leavitt", "leibniz", "liskov", "lovelace", "markov"),
    *("maxwell", "mayer", "mcclintock", "meitner", "mendel", "mirzakhani", "moore", "morse", "nash", "neumann"),
    *("newton", "nightingale", "nobel", "noether", "noyce", "pascal", "pasteur", "pauling", "payne", "perlman"),
    *("planck", "poincare", "poisson", "ptolemy", "raman", "ramanujan", "rhodes", "riemann", "ritchie", "rubin"),
    *("sagan", "shannon", "somerville", "swanson", "swartz", "tesla", "thompson", "torvalds", "tu", "turing"),
    *("varahamihira", "volta", "wiles", "wilson", "wing", "wozniak", "wright", "wu", "yalow", "yonath"),
)
"""A run id is two words and the hour and minute in UTC: `best-hamilton-0300`."""
IDENTITY = "vnd.runnable.identity"
BEGUN_BY = "vnd.runnable.begun-by"
INVOCATIONS = "vnd.runnable.invocations"
INVOCATIONS_MAX = 300
CREATED = "org.opencontainers.image.created"
REVISION = "org.opencontainers.image.revision"


def run_id(moment: datetime, choose: Callable[[Sequence[str]], str]) -> str:
    """Make a run id; `choose` picks one of several words (`random.choice`, or something that repeats itself)."""
    return f"{choose(ADJECTIVES)}-{choose(SCIENTISTS)}-{moment:%H%M}"


def run_identity(log: RunLog) -> str:
    """Return what the logs of one run share, and those of no other run.

    It is made when a run begins. For a run that an earlier version began, which made none, it is the digest of what
    was recorded then. A log in which two beginnings were once mixed has the identity of neither.
    """
    identities = {invocation.identity or _digest(_as_begun(invocation)) for invocation in beginnings(log)}
    return identities.pop() if len(identities) == 1 else _digest(sorted(identities))


def beginnings(log: RunLog) -> list[Invocation]:
    """Return the invocation that began the run (not always the first: clocks differ between machines)."""
    return [invocation for invocation in log.invocations if invocation.command == "run"] or log.invocations[:1]


def invocation_digest(invocation: Invocation) -> str:
    """Return what tells an invocation from all others, in each copy of the log and from its beginning on.

    It covers the digests of those that it had seen, so that none can be among its own ancestors. In logs of earlier
    versions, which know neither those nor an identity for each, it is the moment and the command alone.
    """
    parents = sorted(invocation.parents or ()) if invocation.identity else []
    return _digest([invocation.start_time, invocation.command, invocation.identity, parents])


def known_invocations(log: RunLog) -> str:
    """Return what tells the invocations of a log from others, for a listing; empty where they are too many for that."""
    if len(log.invocations) > INVOCATIONS_MAX:
        return ""
    return " ".join(sorted(invocation_digest(invocation)[:12] for invocation in log.invocations))


def with_parents(invocations: Sequence[Invocation]) -> list[Invocation]:
    """Return the invocations of one log with which ones each had seen, also those of earlier versions.

    Such a one was added to the log as it was then, so it had seen all that stand before it.
    """
    newest: dict[str, None] = {}
    known = []
    for invocation in invocations:
        if invocation.parents is None:
            seen = [] if invocation.command == "run" else sorted(newest)
            known.append(invocation.model_copy(update={"parents": seen}))
        else:
            known.append(invocation)
        for parent in known[-1].parents or ():
            newest.pop(parent, None)
        newest[invocation_digest(invocation)] = None
    return known


def heads(invocations: Sequence[Invocation]) -> list[str]:
    """Return the digests of the newest invocations of a log: those that no other one of it had seen."""
    known = with_parents(invocations)
    seen = {parent for invocation in known for parent in invocation.parents or ()}
    return sorted({invocation_digest(invocation) for invocation in known} - seen)


def is_after(log: RunLog, number: int, other: int) -> bool:
    """Return whether an invocation of a log had seen another one, each by its number; of unknown ones the later had."""
    numbers = {invocation.number for invocation in log.invocations}
    if number <= other or not {number, other} <= numbers:
        return number > other
    known = {invocation_digest(invocation): invocation for invocation in with_parents(log.invocations)}
    waiting = [digest for digest, invocation in known.items() if invocation.number == number]
    entered = {*waiting}
    while waiting:
        parents = {parent for parent in known[waiting.pop()].parents or () if parent in known}
        if any(known[parent].number == other for parent in parents):
            return True
        waiting.extend(parents - entered)
        entered |= parents
    return False


def has_run_since(log: RunLog, step: str, attempt: StepAttempt) -> bool:
    """Return whether an invocation that had seen an attempt at some step has made the last one at this step."""
    return is_after(log, log.steps[step].attempts[-1].invocation, attempt.invocation)


def maker(log: RunLog, step: str) -> str:
    """Return the digest of the invocation that made a step's last attempt; empty where none did."""
    last = log.steps[step].attempts[-1:]
    return next((invocation_digest(one) for a in last for one in log.invocations if one.number == a.invocation), "")


def number_taken(log: RunLog) -> int:
    """Return how many steps have a result of another run."""
    return sum(bool(step.attempts and step.attempts[-1].taken_from) for step in log.steps.values())


def mocked_steps(log: RunLog) -> list[str]:
    """Return the steps that were mocked, each with its branches once."""
    return list(dict.fromkeys(name.partition(".")[0] for name, step in log.steps.items() if step.mock))


def describe_beginning(annotations: Mapping[str, str]) -> str:
    """Return who began a run, when and with which code, as far as the annotations of its manifest say."""
    time = annotations.get(CREATED, "")[:19].replace("T", " ")
    actor, commit = annotations.get(BEGUN_BY, ""), annotations.get(REVISION, "")[:7]
    parts = [f"by {actor[:100]}" if actor else "", f"at {time} UTC" if time else "", f"with code {commit}"]
    return " ".join(["begun", *filter(None, parts if commit else parts[:2])]) if time or actor else "of unknown origin"


def _as_begun(invocation: Invocation) -> list[object]:
    """Return the fields that never change after an invocation has begun."""
    return [invocation.start_time, invocation.command, invocation.parameters, invocation.redacted]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
