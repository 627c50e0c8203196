"""The `sitecustomize` of runs in which something is held: what else differs from run to run is the same each time.

It runs in the interpreters of the steps, before the user's code, and only in such runs: the standard library alone.
`RUNNABLE_HELD` names what is held, `RUNNABLE_HELD_MOMENT` when a held clock begins.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Dict, cast

HELD = set(filter(None, os.environ.get("RUNNABLE_HELD", "").split(",")))
MOMENT = int(os.environ.get("RUNNABLE_HELD_MOMENT", "0"))
"""Seconds since 1970."""
TICK_NS = 1000
"""By how much a held clock is later each time it is read, so that what waits for a moment comes to an end."""
FIRST_PID = 4200


def hold_random() -> None:
    """Seed `random`, and numpy once it is imported; generators that were given no seed get one."""
    import random

    seed = random.Random.seed

    def seeded(self: Any, a: Any = None, version: int = 2) -> None:
        seed(self, 0 if a is None else a, version)

    random.Random.seed = seeded  # type: ignore[method-assign]
    once = random.seed.__self__  # type: ignore[attr-defined]
    random.seed = once.seed
    random.seed()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=random.seed)
    after_import("numpy.random", _seed_numpy)


def _seed_numpy(module: Any) -> None:
    module.seed(0)
    generator, state = module.default_rng, module.RandomState

    def default_rng(seed: Any = None) -> Any:
        return generator(0 if seed is None else seed)

    class RandomState(state):  # type: ignore[misc, valid-type]
        def __init__(self, seed: Any = None) -> None:
            super().__init__(0 if seed is None else seed)

    RandomState.__module__, RandomState.__qualname__ = state.__module__, state.__qualname__
    module.default_rng = default_rng
    if hasattr(module, "bit_generator") and hasattr(module.bit_generator, "randbits"):
        module.bit_generator.randbits = lambda bits: (1 << bits) // 3


def hold_system_random() -> None:
    """Give the same bytes for those of the system: of `os.urandom`, `secrets` and `uuid`."""
    import hashlib
    import random
    import uuid

    count = [0]

    def urandom(size: int) -> bytes:
        count[0] += 1
        found = b""
        while len(found) < size:
            found += hashlib.sha256(b"%d %d" % (count[0], len(found))).digest()
        return found[:size]

    os.urandom = urandom
    random._urandom = urandom  # type: ignore[attr-defined]
    uuid._generate_time_safe = None  # type: ignore[attr-defined]
    uuid.getnode = lambda: 0x020000000000


def hold_listing_order() -> None:
    """Sort what a listing of a folder gives; `glob`, `pathlib` and `os.walk` list by these."""
    listdir, scandir = os.listdir, os.scandir

    class Sorted:
        def __init__(self, path: Any = ".") -> None:
            with scandir(path) as found:
                self.entries = iter(sorted(found, key=lambda entry: entry.name))

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            return next(self.entries)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: Any) -> None:
            self.close()

        def close(self) -> None:
            self.entries = iter(())

    os.listdir = lambda path=".": sorted(listdir(path))  # type: ignore[assignment]
    os.scandir = Sorted  # type: ignore[assignment]
    for name in ("glob", "pathlib", "shutil"):
        after_import(name, _sort_in)


def _sort_in(module: Any) -> None:
    """Replace what a module took from `os` before."""
    for holder in (module, getattr(module, "_NormalAccessor", None), getattr(module, "_normal_accessor", None)):
        for name in ("listdir", "scandir"):
            if holder is not None and name in vars(holder):
                setattr(holder, name, getattr(os, name))


def hold_time() -> None:
    """Let the clocks of this process begin at one moment, and be a little later each time they are read."""
    import time

    clocks = {"wall": MOMENT * 10**9, "other": 10**12}

    def of(clock: str) -> Callable[[], int]:
        def now_ns() -> int:
            clocks[clock] += TICK_NS
            return clocks[clock]

        return now_ns

    wall, other = of("wall"), of("other")
    localtime, gmtime, strftime, sleep = time.localtime, time.gmtime, time.strftime, time.sleep
    time.time_ns, time.time = wall, lambda: wall() / 1e9
    for name in ("monotonic", "perf_counter", "process_time", "thread_time"):
        setattr(time, name + "_ns", other)
        setattr(time, name, lambda: other() / 1e9)
    time.localtime = lambda seconds=None: localtime(time.time() if seconds is None else seconds)
    time.gmtime = lambda seconds=None: gmtime(time.time() if seconds is None else seconds)
    time.ctime = lambda seconds=None: time.asctime(time.localtime(seconds))
    time.strftime = lambda form, t=None: strftime(form, time.localtime() if t is None else t)

    def slept(seconds: Any) -> None:
        sleep(seconds)
        for clock in clocks:
            clocks[clock] += int(seconds * 1e9)

    time.sleep = slept
    _hold_datetime(time)
    after_import("zipfile", _hold_zip)
    after_import("tarfile", _hold_tar)


def _hold_datetime(time: Any) -> None:
    import datetime as module

    datetime: Any = module
    real, real_date = cast(Any, module.datetime), cast(Any, module.date)

    class Meta(type):
        def __instancecheck__(cls, one: Any) -> bool:
            return isinstance(one, real)

        def __subclasscheck__(cls, one: Any) -> bool:
            return issubclass(one, real)

    class DateMeta(type):
        def __instancecheck__(cls, one: Any) -> bool:
            return isinstance(one, real_date)

        def __subclasscheck__(cls, one: Any) -> bool:
            return issubclass(one, real_date)

    # As large as the real ones: compiled modules look at what lies where in them.
    class HeldDateTime(real, metaclass=Meta):  # type: ignore[misc, valid-type]
        __slots__ = ()

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.fromtimestamp(time.time(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.fromtimestamp(time.time(), datetime.timezone.utc).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Any:
            return cls.fromtimestamp(time.time())

    class HeldDate(real_date, metaclass=DateMeta):  # type: ignore[misc, valid-type]
        __slots__ = ()

        @classmethod
        def today(cls) -> Any:
            return cls.fromtimestamp(time.time())

    for held, name in ((HeldDateTime, "datetime"), (HeldDate, "date")):
        held.__module__, held.__name__, held.__qualname__ = "datetime", name, name

    def replace(a_datetime: Any, a_date: Any) -> None:
        datetime.datetime, datetime.date = a_datetime, a_date

    class RealForPandas:
        """Its compiled modules crash where they load and the classes are not the real ones."""

        def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> None:
            if name == "pandas":
                replace(real, real_date)

    sys.meta_path.insert(0, RealForPandas())
    after_import("pandas", lambda _module: replace(HeldDateTime, HeldDate))
    replace(HeldDateTime, HeldDate)


def _hold_zip(module: Any) -> None:
    import time

    from_file, moment = module.ZipInfo.from_file, time.gmtime(MOMENT)[:6]

    def held(_cls: Any, *args: Any, **named: Any) -> Any:
        found = from_file(*args, **named)
        found.date_time = moment
        return found

    module.ZipInfo.from_file = classmethod(held)


def _hold_tar(module: Any) -> None:
    gettarinfo = module.TarFile.gettarinfo

    def held(self: Any, *args: Any, **named: Any) -> Any:
        found = gettarinfo(self, *args, **named)
        if found is not None:
            found.mtime = MOMENT
        return found

    module.TarFile.gettarinfo = held


def hold_completion_order() -> None:
    """Let one thing run after another: pools of one worker, and threads that are waited for a moment."""
    import threading

    start = threading.Thread.start

    def started(self: Any) -> None:
        start(self)
        if not self.daemon and type(self) is threading.Thread:
            self.join(0.5)

    threading.Thread.start = started  # type: ignore[method-assign]
    after_import("concurrent.futures.thread", lambda module: _one_worker(module.ThreadPoolExecutor, "max_workers"))
    after_import("concurrent.futures.process", lambda module: _one_worker(module.ProcessPoolExecutor, "max_workers"))
    after_import("multiprocessing.pool", lambda module: _one_worker(module.Pool, "processes"))
    after_import("concurrent.futures", _in_order)


def _one_worker(pool: Any, name: str) -> None:
    init = pool.__init__

    def held(self: Any, _workers: Any = None, *args: Any, **named: Any) -> None:
        named.pop(name, None)
        init(self, 1, *args, **named)

    pool.__init__ = held


def _in_order(module: Any) -> None:
    def as_completed(futures: Any, timeout: Any = None) -> Any:
        waiting = list(futures)
        if isinstance(futures, (set, frozenset)):
            waiting.sort(key=order)
        for future in waiting:
            module.wait([future], timeout)
            yield future

    def order(future: Any) -> int:
        return int(future.__dict__.get("_runnable_order", 0))

    base, count = module._base.Future, [0]
    init = base.__init__

    def held(self: Any) -> None:
        init(self)
        count[0] += 1
        self._runnable_order = count[0]

    base.__init__ = held
    module.as_completed = module._base.as_completed = as_completed


def hold_process_id() -> None:
    """Give processes numbers in the order in which they ask for theirs."""
    real, known = os.getpid, {}  # type: Callable[[], int], Dict[int, int]

    def number(pid: int) -> int:
        return known.setdefault(pid, FIRST_PID + len(known))

    kill, getppid = os.kill, os.getppid
    os.getpid = lambda: number(real())
    os.getppid = lambda: number(getppid())
    os.kill = lambda pid, signal: kill(next((r for r, shown in known.items() if shown == pid), pid), signal)


def hold_path() -> None:
    """Let the names of temporary files be a count."""
    import tempfile

    class Names:
        count = 0

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> str:
            self.count += 1
            return "%08d" % self.count

    names = Names()
    tempfile._get_candidate_names = lambda: names  # type: ignore[attr-defined]


def after_import(name: str, change: Callable[[Any], None]) -> None:
    """Change a module once it is imported; now where it is."""
    if name in sys.modules:
        change(sys.modules[name])
    else:
        CHANGES[name] = change


CHANGES: Dict[str, Callable[[Any], None]] = {}


class Changing:
    """Finds modules as all others do, and changes them once they were executed."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        """Return the module's spec, with a loader that changes it; None for what is not changed."""
        if name not in CHANGES:
            return None
        change = CHANGES.pop(name)
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find and finder is not Changing else None
            if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
                execute = spec.loader.exec_module

                def changed(module: Any, execute: Any = execute) -> None:
                    execute(module)
                    change(module)

                try:
                    spec.loader.exec_module = changed
                except AttributeError:  # a loader without a place for it: what it loads stays as it is
                    pass
                return spec
        return None


def other_sitecustomize() -> None:
    """Execute the one that this one hides."""
    own = os.path.dirname(os.path.abspath(__file__))
    for folder in sys.path:
        file = os.path.join(folder, "sitecustomize.py")
        if os.path.abspath(folder or ".") != own and os.path.isfile(file):
            with open(file, "rb") as opened:
                exec(compile(opened.read(), file, "exec"), {"__name__": "sitecustomize", "__file__": file})
            return


HOLDS: Dict[str, Callable[[], None]] = {
    "random": hold_random,
    "system-random": hold_system_random,
    "listing-order": hold_listing_order,
    "time": hold_time,
    "completion-order": hold_completion_order,
    "process-id": hold_process_id,
    "path": hold_path,
}
if HELD:
    sys.meta_path.insert(0, Changing)
    for held_name, hold in HOLDS.items():
        if held_name in HELD:
            hold()
    other_sitecustomize()
