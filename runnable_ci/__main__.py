"""The entry point: loads the command line with the garbage collector off; what works long turns it on again."""

from __future__ import annotations

from runnable_ci import loading


def main() -> None:
    """Run the command line."""
    loading.begin()
    from runnable_ci.cli import app, run

    try:
        run(app)
    finally:
        loading.end()


if __name__ == "__main__":
    main()
