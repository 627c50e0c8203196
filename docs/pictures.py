"""Makes the pictures of the README from real runs: `python docs/pictures.py`.

`resume.svg` is a terminal in which the example fails, is fixed and resumes; `summary.png` is the summary of the job
that ran it, as a browser shows it. Needs what the tests need, and Chromium for the second.
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from markdown_it import MarkdownIt
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
FOLDER = Path(__file__).parent / "pictures"
EXAMPLE = ROOT / "examples" / "iris"
BUG = ("logreg.fit(train_X, train_Y)", "logreg.fit(train_X, train_y)")
COLUMNS = 96
STYLE = """
body { font: 16px/1.5 -apple-system, "Segoe UI", "Liberation Sans", sans-serif; color: #1f2328 }
body { margin: 24px 32px; width: 900px }
table { border-collapse: collapse; margin: 0 0 16px } td, th { border: 1px solid #d1d9e0; padding: 6px 13px }
tr:nth-child(2n) { background: #f6f8fa }
code, pre { font: 85%/1.45 "DejaVu Sans Mono", monospace; background: #eff1f3; border-radius: 6px }
code { padding: .2em .4em } pre { padding: 16px; background: #f6f8fa }
pre code { padding: 0; background: none; font-size: 100% }
h2 { border-bottom: 1px solid #d1d9e0; padding-bottom: .3em }
"""


def main() -> None:
    """Write both pictures."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        environ = _environment(Path(scratch))
        (FOLDER / "resume.svg").write_text(
            _terminal(_project(Path(scratch, "iris"), environ), environ), encoding="utf-8"
        )
        project = _project(Path(scratch, "job"), environ)
        subprocess.run(["git", "commit", "-qam", "Fit on all"], cwd=project, env=environ, check=True)
        _screenshot(_summary(project, environ, Path(scratch)), FOLDER / "summary.png", Path(scratch))


def _environment(scratch: Path) -> dict[str, str]:
    """Return an environment with a home of its own, and this interpreter's programs first."""
    home = scratch / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\nname = A\nemail = a@example.org\n[init]\ndefaultBranch = main\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"HOME": str(home), "PATH": path, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LANG": "C.UTF-8"}


def _project(folder: Path, environ: Mapping[str, str]) -> Path:
    """Return a copy of the example in a repository of its own, with the bug in it."""
    folder.mkdir()
    for name in ("iris.py", "runnable.toml"):
        shutil.copy(EXAMPLE / name, folder)
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "Iris pipeline"]):
        subprocess.run(["git", *command], cwd=folder, env=dict(environ), check=True)
    _replace(folder / "iris.py", *BUG)
    return folder


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text  # noqa: S101 - the example changed
    file.write_text(text.replace(old, new), encoding="utf-8")


def _terminal(project: Path, environ: Mapping[str, str]) -> str:
    """Return the SVG of run, fix and retry, without what is only for machines."""
    shown = Text()
    for command, fix in (("runnable-ci run", False), ("runnable-ci retry latest", True)):
        if fix:
            _replace(project / "iris.py", *reversed(BUG))
            shown.append("\n$ ", "bold green").append(f"sed -i 's/{BUG[1]}/{BUG[0]}/' iris.py\n", "bold")
        shown.append("$ ", "bold green").append(f"{command}\n", "bold")
        shown.append_text(Text.from_ansi(_said(command.split(), project, environ)).copy()).append("\n")
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w", encoding="utf-8"), force_terminal=True)  # noqa: SIM115
    console.print(shown)
    svg = console.export_svg(title="runnable-ci")
    # Fonts are the reader's own: nothing is loaded from elsewhere.
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def _said(command: list[str], folder: Path, environ: Mapping[str, str]) -> str:
    """Return what a command writes to a terminal."""
    main, other = pty.openpty()
    with subprocess.Popen(command, cwd=folder, env=dict(environ), stdin=other, stdout=other, stderr=other):
        os.close(other)
        said = b""
        try:
            while chunk := os.read(main, 65536):
                said += chunk
        except OSError:  # the other end is closed
            pass
    os.close(main)
    return said.decode().replace("\r\n", "\n").strip()


def _summary(project: Path, environ: Mapping[str, str], scratch: Path) -> str:
    """Return the summary, in Markdown, of a job that runs the example."""
    summary, output = scratch / "summary.md", scratch / "output"
    summary.touch()
    job = {
        **environ,
        "GITHUB_ACTIONS": "true",
        "GITHUB_JOB": "pipeline",
        "GITHUB_RUN_ID": "4711",
        "GITHUB_RUN_ATTEMPT": "1",
        "GITHUB_REPOSITORY": "octo/flowers",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_STEP_SUMMARY": str(summary),
        "GITHUB_OUTPUT": str(output),
        "RUNNER_TEMP": str(scratch),
        "RUNNABLE_CI_ACTION_PUBLISH": "never",
    }
    action = [sys.executable, "-m", "runnable_ci", "action"]
    subprocess.run([*action, "begin"], cwd=project, env=job, stdout=subprocess.DEVNULL, check=False)
    found = re.search(r"run-id<<(\S+)\n(.*?)\n\1", output.read_text(encoding="utf-8"), re.DOTALL)
    assert found  # noqa: S101 - the action says its run id
    subprocess.run(
        [*action, "finish", f"--run-id={found[2]}"], cwd=project, env=job, stdout=subprocess.DEVNULL, check=True
    )
    return summary.read_text(encoding="utf-8")


def _screenshot(markdown: str, target: Path, scratch: Path) -> None:
    """Have a browser show Markdown as GitHub does, but for graphs, which are drawn by a script of GitHub's."""
    plain = re.sub(r"```mermaid.*?```", "", markdown, flags=re.DOTALL)
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(plain)
    page = scratch / "summary.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{body}", encoding="utf-8")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("error: Chromium is not installed\nhint: apt-get install chromium")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=980,720"]
    subprocess.run([browser, *options, f"--screenshot={target}", page.as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    main()
