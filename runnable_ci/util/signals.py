"""How a person or a runner ends us: the first signal asks, the second ends the program whatever it is waiting for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

CANCEL_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""By which a person or a runner ends us."""
LAST_S: Final = 2.0
"""How long the program has after the second signal to record what it was doing. GitHub kills 2.5 s after its second."""
_cancelled_at_s: list[float] = []
at_once: Final[list[Callable[[], None]]] = []
"""What is done when a signal ends the program at once: it takes no lock and waits for nothing."""


def since_cancelled_s() -> float | None:
    """Return how long ago the first signal was received in a `cancelling` block; None before any."""
    return time.monotonic() - _cancelled_at_s[0] if _cancelled_at_s else None


def end_at_second_interrupt() -> None:
    """Make Ctrl-C raise `KeyboardInterrupt` as usual, and a second one end the program at once.

    Where something else was decided (a shell's background job ignores Ctrl-C) that stays.
    """

    def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
        signal.signal(number, _end)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


@contextmanager
def cancelling(cancel: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call `cancel` for the first two signals in the block.

    The second leaves the program `LAST_S` seconds, also beyond the block; the third ends it at once.
    """
    received: list[int] = []

    def receive(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        _cancelled_at_s.append(time.monotonic())
        if len(received) > 1:
            for each in numbers:
                signal.signal(each, _end)
            signal.signal(signal.SIGALRM, lambda *_: _exit(number))
            signal.setitimer(signal.ITIMER_REAL, LAST_S)  # interrupts whatever the main thread waits for
        cancel(signal.Signals(number))

    # Where SIGHUP is ignored, nohup wants the run to outlive its terminal.
    numbers = [n for n in CANCEL_SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is signal.SIG_DFL]
    earlier = {number: signal.signal(number, receive) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def unwinding() -> Iterator[None]:
    """Let the first SIGTERM and SIGHUP end the block as Ctrl-C does: what is temporary is removed on the way.

    The second ends the program at once.
    """

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        for each in numbers:
            signal.signal(each, _end)
        raise SystemExit(128 + number)

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """End without a clean-up: everything on disk is whole or absent, as after a kill."""
    _exit(number)


def _exit(number: int) -> NoReturn:
    for do in at_once:
        do()
    os._exit(128 + number)
