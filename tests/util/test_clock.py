"""Tests of the run log's times."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from runnable_ci.util.clock import now

AFTER_A_CORRECTION = """
import sys, time, datetime
from runnable_ci.util import clock
class Corrected(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.now(tz) - datetime.timedelta(days=1)
first = clock.now()
clock.datetime = Corrected
time.time = lambda: 0.0
time.sleep(0.01)
print(first, clock.now())
"""


def test_now_is_the_time_of_day() -> None:
    """The times are UTC, those that the system has."""
    assert abs((datetime.fromisoformat(now()) - datetime.now(UTC)).total_seconds()) < 60


@pytest.mark.promise
def test_a_corrected_time_of_day_changes_no_duration() -> None:
    """Where the system's time is set back meanwhile, what passed is still what passed."""
    done = subprocess.run([sys.executable, "-c", AFTER_A_CORRECTION], check=True, capture_output=True, text=True)
    first, second = map(datetime.fromisoformat, done.stdout.split())
    assert 0.01 <= (second - first).total_seconds() < 60
