"""Registries that deviate a little: every switch on publish, runs, pull, retry and prune."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from deviations import SWITCHES
from published_runs import contents, got, record, sent, store
from registry_server import Served, registry, serving

from runnable_ci.cli.cleanup import prune
from runnable_ci.config import Settings
from runnable_ci.errors import StoreError
from runnable_ci.runs.artifact import layers
from runnable_ci.runs.reader import load
from runnable_ci.runs.remote.listing import list_published, published
from runnable_ci.runs.remote.pull import fetch, find, missing_blobs, read_origin, take
from runnable_ci.store.registry import Registry

FILES = {"a.txt": b"alpha", "big.bin": os.urandom(300_000)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_registry_that_deviates_holds_runs(tmp_path: Path, served: Served, switch: str) -> None:
    """What one registry does otherwise than all others stops no publish, listing, pull, retry or removal."""
    here, there, reader = store(tmp_path / "here"), store(tmp_path / "there"), tmp_path / "reader"
    is_listed = not switch.startswith("no list of tags")
    with serving(SWITCHES[switch](), upstream=served) as server:
        remote = Registry(server.repository(), environ={}, sleep=lambda _: None)
        record(here, "load", FILES)
        sent(here, remote)
        assert sent(here, remote).sent is None  # what is there is known by its tag
        assert [run.run_id for run in published(remote)] == ["r"]  # where there is no list the record of tags has it

        take(there, find(remote, "r", layout=there), only_log=True)  # as a retry on another machine
        origin, log = read_origin(there, "r"), load(there, "r")
        assert origin is not None
        fetch(there, remote, origin, missing_blobs(there, list(layers(log).values())))
        assert contents(there) == FILES
        record(there, "more", {"more.bin": b"more" * 50_000})
        retried = sent(there, remote)
        assert bool(retried.notes) == switch.startswith(("immutable tags", "only images"))

        layout, pulled = got(reader, remote)
        if is_listed:
            assert contents(layout) == {**FILES, "more.bin": b"more" * 50_000}
        assert bool(pulled.refusals()) == (not is_listed and not switch.endswith("404"))
        if is_listed:
            prune(source=remote.label, keep=0, older_than=None, dry_run=False, settings=Settings(), environ={})
            assert published(remote) == []
        elif not switch.endswith("404"):
            with pytest.raises(StoreError, match="does not list" if switch[-3:] in ("405", "501") else "no"):
                list_published(remote, exact=True)
