"""The entry point: where the program does not run it says so, else it loads the command line."""

from __future__ import annotations

import gc
import os
import sys

_OBJECTS_BEFORE_A_COLLECTION = 200_000
"""About as many as a command loads: nothing of that is garbage, and the search takes long."""

_READS_ONLY = "`import runnable_ci` reads runs without it\nhint: install the tool apart: pipx install, in its clone"


def main() -> None:
    """Run the command line."""
    if sys.version_info < (3, 11):
        sys.exit(f"error: the command needs Python 3.11 or newer, this is {sys.version.split()[0]}; {_READS_ONLY}")
    from runnable_ci.observe.looks import watched_folder
    from runnable_ci.util.console import console, occupy_closed_streams

    if sys.platform == "win32":
        console.err("error: this program runs on Linux and macOS; on Windows, use WSL: https://aka.ms/wsl")
        sys.exit(2)
    occupy_closed_streams()
    if (
        sys.getfilesystemencoding() == "ascii"
    ):  # PYTHONUTF8=0 in the C locale: no word or name in UTF-8 could be passed on
        from runnable_ci.util.process import exec_program

        exec_program([sys.executable, "-X", "utf8", *sys.orig_argv[1:]], os.environ)
    if "RUNNABLE_HANDED_OVER" in os.environ:
        from runnable_ci.config.handed_over import receive

        receive(os.environ)
    if found := watched_folder(os.environ):
        from runnable_ci.observe.looks.shared import announce_to_watchers

        announce_to_watchers(*found)
    gc.set_threshold(_OBJECTS_BEFORE_A_COLLECTION)
    try:
        from runnable_ci.cli import command_line
        from runnable_ci.cli.errors import run

        run(command_line(sys.argv[1:]))
    except ModuleNotFoundError as e:
        if e.name is None or e.name.partition(".")[0] == "runnable_ci":
            raise
        console.err(f"error: the command needs {e.name}, which {sys.executable} does not have; {_READS_ONLY}")
        sys.exit(1)
    except KeyboardInterrupt:  # while nothing was begun, or as the last word was being said
        sys.exit(130)
    finally:
        gc.freeze()  # else the interpreter looks through everything once more before it exits


if __name__ == "__main__":
    main()
