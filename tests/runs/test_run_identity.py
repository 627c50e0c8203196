"""Tests of the run ids."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from runnable_ci.runs.run_identity import ADJECTIVES, SCIENTISTS, run_id
from runnable_ci.store.target import TAG

MOMENT = datetime(2024, 8, 10, 3, 0, 12, tzinfo=UTC)


def test_a_run_id_says_quality_person_and_time() -> None:
    """The id is a quality, a person and the hour and minute, chosen by the caller's function."""
    assert run_id(MOMENT, lambda words: words[-1]) == "zesty-yonath-0300"
    assert run_id(MOMENT, lambda words: words[0]) == "able-abel-0300"


def test_every_word_makes_a_good_id() -> None:
    """Each word is plain lower-case letters and is there once, so that every id is a tag of any registry."""
    for words in (ADJECTIVES, SCIENTISTS):
        assert len(set(words)) == len(words)
        assert all(re.fullmatch("[a-z]{2,14}", word) for word in words)
    longest = run_id(MOMENT, lambda words: max(words, key=len))
    assert TAG.fullmatch(longest)
    assert len(longest) < 40


def test_ids_of_one_minute_rarely_meet() -> None:
    """There are thousands of ids for each minute."""
    assert len(ADJECTIVES) * len(SCIENTISTS) > 5000
