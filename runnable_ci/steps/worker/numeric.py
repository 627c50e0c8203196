"""Which libraries for linear algebra and threads this process has loaded, and how they are set.

They are recognised by their files and asked by their own functions. None is loaded for that.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_MAPS_MAX_BYTES = 8 * 1024 * 1024
_LIBRARIES_MAX = 20
_KINDS = (
    ("openblas", ("libopenblas", "libscipy_openblas")),
    ("mkl", ("libmkl_rt", "libmkl_core", "libmkl_intel_thread", "libmkl_gnu_thread", "libmkl_sequential")),
    ("blis", ("libblis.", "libblis-")),
    ("openmp", ("libgomp.", "libgomp-", "libiomp5.", "libiomp5-", "libomp.", "libomp-")),
    (
        "blas",
        ("libblas.", "libcblas.", "libf77blas.", "libflexiblas.", "libatlas", "libsatlas", "libarmpl"),
    ),
    ("accelerate", ("Accelerate", "libvecLib", "libBLAS.dylib")),
)
"""How the names of their files begin."""
_WORDS = (b"blas", b"libmkl", b"libblis", b"omp", b"atlas", b"libarmpl")
"""One of them is in the name of each on Linux: where there is none, nothing more is looked at."""
# What wheels put before or after the names of a library's functions, so that two of them do not clash.
_PREFIXES = ("", "scipy_")
_SUFFIXES = ("", "64_", "_64", "_")


def numeric_libraries() -> list[dict[str, Any]]:
    """Return the libraries: name of the file, kind, version as it says it, threads (0 where it does not say)."""
    found: dict[str, dict[str, Any]] = {}
    try:
        for path in _loaded():
            name = os.path.basename(path)
            kind = next((kind for kind, beginnings in _KINDS if name.startswith(beginnings)), "")
            if kind and path not in found and len(found) < _LIBRARIES_MAX:
                version, threads = _asked(path, kind)
                found[path] = {"name": name, "kind": kind, "version": version, "threads": threads}
    except Exception:  # the step has done its work: nothing of this may end it
        return list(found.values())
    return list(found.values())


def _loaded() -> Iterator[str]:
    """Yield the files of the libraries that are loaded, each as often as the system says it."""
    if sys.platform == "darwin":
        if "ctypes" in sys.modules:  # it takes a while to load, and NumPy has loaded it
            import ctypes

            process = ctypes.CDLL(None)
            name_of = process._dyld_get_image_name
            name_of.restype = ctypes.c_char_p
            for number in range(process._dyld_image_count()):
                yield os.fsdecode(name_of(number) or b"")
        return
    opened = os.open("/proc/self/maps", os.O_RDONLY)
    try:
        maps, left = b"", _MAPS_MAX_BYTES
        parts = []
        while left > 0:
            part = os.read(opened, 65536)
            if not part:
                break
            parts.append(part)
            left -= len(part)
        maps = b"".join(parts)
    finally:
        os.close(opened)
    if not any(word in maps for word in _WORDS):
        return
    for line in maps.split(b"\n"):
        fields = line.split(None, 5)
        if len(fields) == 6 and b"x" in fields[1] and fields[5].startswith(b"/"):  # one of each: that of its code
            yield os.fsdecode(fields[5])


def _asked(path: str, kind: str) -> tuple[str, int]:
    """Return the version and the number of threads, as far as a library says them."""
    no_load = getattr(os, "RTLD_NOLOAD", None)
    if no_load is None or kind in ("blas", "accelerate"):
        return "", 0
    import ctypes

    try:
        library = ctypes.CDLL(path, mode=no_load)
    except OSError:
        return "", 0
    version, threads = "", 0
    if kind == "openblas":
        config = _function(library, "openblas_get_config")
        threads_of = _function(library, "openblas_get_num_threads")
    elif kind == "blis":
        config = _function(library, "bli_info_get_version_str")
        threads_of = _function(library, "bli_thread_get_num_threads")
    elif kind == "mkl":
        config, threads_of = None, _function(library, "MKL_Get_Max_Threads")
        version = _version_of_mkl(library)
    else:
        config, threads_of = None, _function(library, "omp_get_max_threads")
    if config is not None:
        config.restype = ctypes.c_char_p
        version = (config() or b"").decode("utf-8", "replace").strip()
    if threads_of is not None:
        threads = int(threads_of())
    return version[:200], threads


def _version_of_mkl(library: Any) -> str:
    import ctypes

    say = _function(library, "MKL_Get_Version_String") or _function(library, "mkl_get_version_string")
    if say is None:
        return ""
    buffer = ctypes.create_string_buffer(200)
    say(buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace").strip()


def _function(library: Any, name: str) -> Any:
    for prefix in _PREFIXES:
        for suffix in _SUFFIXES:
            found = getattr(library, prefix + name + suffix, None)
            if found is not None:
                return found
    return None
