"""Tests of what is known of files that were hashed in earlier invocations."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnable_ci.observe.hash_cache import SIZE_MIN, HashCache

SEEN = (1, SIZE_MIN, 2, 3)
DIGEST = "0" * 64


def test_known_as_long_as_nothing_changed(tmp_path: Path) -> None:
    """A file is known to a later invocation by all its numbers together, a small one never."""
    first = HashCache(tmp_path / "hashes.json")
    first.put("a", SEEN, DIGEST)
    first.put("small", (1, SIZE_MIN - 1, 2, 3), DIGEST)
    first.save(Path.write_bytes)
    later = HashCache(tmp_path / "hashes.json")
    assert later.get("a", SEEN) == DIGEST
    assert [later.get("a", tuple(n + (i == place) for i, n in enumerate(SEEN))) for place in range(4)] == [None] * 4
    assert (later.get("b", SEEN), later.get("small", (1, SIZE_MIN - 1, 2, 3))) == (None, None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"a": 1}',
        b'{"files": [1]}',
        b'{"files": {"a": [[1, 1048576, 2], "x"]}}',
        b'{"files": {"a": [[1, 1048576, 2, 3], "../x"]}}',
        b'{"files": {"a": [[1, 1048576, 2, "3"], "%s"]}}' % DIGEST.encode(),
    ],
)
def test_hostile_content(tmp_path: Path, content: bytes) -> None:
    """What is no such table says nothing, and is written anew."""
    (tmp_path / "hashes.json").write_bytes(content)
    cache = HashCache(tmp_path / "hashes.json")
    assert cache.get("a", SEEN) is None
    cache.put("a", SEEN, DIGEST)
    cache.save(Path.write_bytes)
    assert HashCache(tmp_path / "hashes.json").get("a", SEEN) == DIGEST


def test_a_cache_that_was_changed_says_nothing(tmp_path: Path) -> None:
    """One digit is enough: the files are read again."""
    file = tmp_path / "hashes.json"
    cache = HashCache(file)
    cache.put("a", SEEN, DIGEST)
    cache.save(Path.write_bytes)
    file.write_text(file.read_text().replace(DIGEST, f"1{DIGEST[1:]}"))
    assert HashCache(file).get("a", SEEN) is None


def test_nothing_is_written_for_nothing(tmp_path: Path) -> None:
    """Where all was known already the file stays as it is."""
    cache = HashCache(tmp_path / "hashes.json")
    cache.put("a", SEEN, DIGEST)
    cache.save(Path.write_bytes)
    again = HashCache(tmp_path / "hashes.json")
    again.put("a", SEEN, DIGEST)
    again.save(lambda *_: pytest.fail("written"))
