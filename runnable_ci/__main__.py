"""The entry point: loads the command line with the garbage collector off, since nothing that loads is garbage."""

from __future__ import annotations

import gc


def main() -> None:
    """Run the command line."""
    gc.disable()
    from runnable_ci.cli import app, run

    gc.freeze()
    gc.enable()
    run(app)


if __name__ == "__main__":
    main()
