"""Tests of the language: one standard word for one thing, in messages, help, comments and documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

BANNED = {
    r"(go|goes|going|gone|went) on": "resume, continue",
    r"told": "is shown, is specified, is distinguished",
    r"meant": "specified, selected",
    r"(stand|stands|standing|stood) for": "points to, represents, matches",
    r"let (?!me\b)\w+ be": "a sentence with a verb",
    r"anew": "again",
    r"TOOK": "DURATION",
    r"(of|are|is) ours": "of this program",
    r"so to say": "nothing",
    r"at hand": "current",
    r"be had": "is available, is found",
    r"nobody's": "never passed on",
    r"somebody": "a person, another process",
    r"whoever": "the program or person that",
    r"all the same": "nevertheless",
    r"(speak|speaks|spoken) (to|plain)": "connect to, allow plain HTTP",
    r"belongs? into": "belong in",
    r"mends?": "fix, repair",
    r"unasked": "by itself, automatically",
    r"(leave|leaves|left) (\{[^}]*\}[^}]*\}?|\S+) behind": "not downloaded",
    r"(is|was) at fault": "transient failure, bug",
    r"told right": "classified correctly",
}
"""What is not said, as a regular expression → what is said instead. Whole words, in any letter case."""


def texts() -> list[Path]:
    """Return the files that a user or a contributor reads."""
    patterns = (
        "runnable_ci/**/*.py",
        "runnable_ci/**/*.yml",
        "docs/**/*.md",
        "docs/*.py",
        "examples/**/*.*",
        ".github/**/*.yml",
        "workflows/*.yml",
        "action.yml",
        "*.md",
    )
    return sorted({path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()})


def faults(text: str) -> list[tuple[int, str, str]]:
    """Return (line, words, what to say instead) of each banned expression, also of one that a line break divides."""
    found = []
    for expression, instead in BANNED.items():
        flags = 0 if expression.isupper() else re.IGNORECASE
        spread = expression.replace(" ", r"[\s#]+")
        matches = re.finditer(rf"(?<![\w`-])({spread})(?!\w)", text, flags)
        found += [
            (text.count("\n", 0, m.start()) + 1, " ".join(m[0].replace("#", " ").split()), instead) for m in matches
        ]
    return found


def test_one_word_for_one_thing() -> None:
    """Nothing that is read says what the glossary has another word for."""
    complaints = [
        f"{path.relative_to(ROOT)}:{line}: `{words}`: write {instead}"
        for path in texts()
        for line, words, instead in faults(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the run goes on", ["goes on"]),
        ("a tag that stands\n    for it", ["stands for"]),
        ("# what somebody\n# told us", ["somebody", "told"]),
        ("TOOK and took", ["TOOK"]),
        ("did_you_mean, meant", ["meant"]),
        ("resume it; it points to a manifest", []),
        ("an ongoing run, a goon, amends", []),
    ],
)
def test_faults(text: str, expected: list[str]) -> None:
    """An expression is found in any letter case and across lines, and not inside other words."""
    assert sorted(words for _, words, _ in faults(text)) == sorted(expected)


def test_the_glossary_has_each_word_once() -> None:
    """The glossary is a table of words in bold, each with a definition of one line, and none is listed twice."""
    rows = re.findall(
        r"^\| (\*\*.+?) \| (.+) \|$", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    words = [word for names, _ in rows for word in re.findall(r"\*\*(.+?)\*\*", names)]
    assert len(words) == len(set(words)) > 30
    assert all(meaning.strip() for _, meaning in rows)
