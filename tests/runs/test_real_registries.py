"""All commands on real registries: docker-registry, and where `SECOND_REGISTRY` is set (`run.sh --long`) Pulp too."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from published_runs import contents, got, record, sent, store
from pulp import ADMIN, pulp_registry
from registry_server import registry

from runnable_ci.cli.cleanup import prune
from runnable_ci.config import Settings
from runnable_ci.runs.remote.listing import published
from runnable_ci.store.registry import Registry

FILES = {"a.txt": b"alpha", "big.bin": os.urandom(300_000)}


@contextmanager
def docker_registry(folder: Path) -> Iterator[str]:
    with registry(folder) as served:
        yield served.host


REGISTRIES: dict[str, Callable[[Path], AbstractContextManager[str]]] = {"docker-registry": docker_registry}
if os.environ.get("SECOND_REGISTRY"):
    REGISTRIES["pulp"] = pulp_registry


@pytest.fixture(scope="module", params=list(REGISTRIES))
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with REGISTRIES[request.param](tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.mark.parametrize("blob_max_bytes", [1 << 30, 100_000])
def test_a_run_is_published_listed_pulled_retried_and_removed(tmp_path: Path, host: str, blob_max_bytes: int) -> None:
    """Two writers, whole blobs or pieces: what is read is what was written, and what is removed is gone."""
    here = store(tmp_path / "here")
    repository = f"{host}/owner/repo-{uuid.uuid4().hex[:12]}"
    remote = Registry(repository, environ={}, credentials=ADMIN, blob_max_bytes=blob_max_bytes)
    record(here, "load", FILES)
    sent(here, remote)
    assert sent(here, remote).sent is None
    assert [run.run_id for run in published(remote)] == ["r"]
    there, _ = got(tmp_path / "there", remote)
    assert contents(there) == FILES
    record(there, "more", {"more.bin": b"more" * 50_000})
    sent(there, remote)
    reader, pulled = got(tmp_path / "reader", remote)
    assert contents(reader) == {**FILES, "more.bin": b"more" * 50_000}
    assert pulled.writers == 2
    settings = Settings(registry=repository, registry_username=ADMIN.username, registry_password=ADMIN.password)
    prune(source=None, keep=0, older_than=None, dry_run=False, settings=settings, environ={})
    assert published(remote) == []
