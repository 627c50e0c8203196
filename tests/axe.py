"""axe-core, an accessibility checker that runs in the page; `python tests/axe.py` takes it from npm into `.cache/`."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

PACKAGE: Final = "axe-core@4.14.1"
SHA512: Final = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
FOLDER: Final = Path(__file__).parent.parent / ".cache" / "axe-core"
FILE: Final = FOLDER / f"{PACKAGE}.js"


def source() -> str:
    """The checker as JavaScript. Fails where it was not taken from npm."""
    assert FILE.exists(), f"there is no {FILE}: tests/run.sh takes it from npm"
    return FILE.read_text(encoding="utf-8")


def take() -> None:
    """Have the checker in the cache folder."""
    if FILE.exists():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=FOLDER) as scratch:
        command = ["npm", "pack", "--silent", PACKAGE]
        name = subprocess.run(command, cwd=scratch, check=True, capture_output=True, text=True).stdout.strip()
        archive = Path(scratch, name)
        found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        assert found == SHA512, f"{PACKAGE} has the digest {found}"
        with tarfile.open(archive) as packed:
            member = packed.extractfile("package/axe.min.js")
            assert member is not None
            new = Path(scratch, "axe.js")
            new.write_bytes(member.read())
            new.replace(FILE)


if __name__ == "__main__":
    take()
