"""The entry point: loads the command line with the garbage collector off; what works long turns it on again."""

from __future__ import annotations

import sys

from runnable_ci.util import startup as loading
from runnable_ci.util.console import write_utf8


def main() -> None:
    """Run the command line."""
    loading.begin()
    if sys.platform == "win32":  # a pipe has the system's code page there, and everybody reads UTF-8
        write_utf8()
    try:
        from runnable_ci.cli.app import app
        from runnable_ci.cli.errors import run

        run(app)
    except KeyboardInterrupt:  # while nothing was begun, or as the last word was being said
        sys.exit(130)
    finally:
        loading.end()


if __name__ == "__main__":
    main()
