"""A pipeline with a step of each kind, one after the other, and one that resumes from its checkpoint."""

from __future__ import annotations

from cli import Workspace
from notebooks import notebook
from podman import IMAGE, Podman

FILES = {
    "code.py": """
def fit(lr):
    found = int(open("data.txt").read()) * lr
    return {"score": found, "model": {"w": [found]}}
""",
    "look.ipynb": notebook("lr = 1", "print('score', score)\nseen = score + lr"),
    ".gitignore": "*.txt\n__pycache__\n.runnable\n",
}
"""What its steps need; and a `well` without which the last one fails at half of its work."""
_STEPS = f"""
[parameters]
lr = 2
[steps.shell]
run = "echo 4 > data.txt"
catalog = {{ put = ["data.txt"] }}
[steps.python]
python = "code:fit"
returns = {{ score = "metric", model = "object" }}
[steps.notebook]
notebook = "look.ipynb"
returns = ["seen"]
[steps.container]
container = "{IMAGE}"
run = "cat data.txt > copied.txt; echo $FROM_IMAGE $score $seen"
catalog = {{ get = ["data.txt"], put = ["copied.txt"] }}
[steps.training]
run = '''
at=$(cat state.txt 2>/dev/null || echo 0)
while [ $at -lt 3 ]; do
  at=$((at + 1)); echo $at > state.txt; echo "epoch $at"; sleep 0.3
  [ $at != 2 ] || [ -e BESIDE/well ] || exit 9
done
echo $at > trained.txt
'''
checkpoint = ["state.txt"]
catalog = {{ put = ["trained.txt"] }}
"""


def steps_of_each_kind(beside: str = "..") -> str:
    """Return the steps, for which the `well` is in this folder."""
    return _STEPS.replace("BESIDE", beside)


def run_broken_and_resumed(project: Workspace, podman: Podman, well: str, run: str, *options: str) -> None:
    """Run all of it, which fails, and resume it once the `well` is there, by its path from the project."""
    project.environ.update(podman.environ, RUNNABLE_CI_CONTAINER_ENGINE="podman")
    (project.folder / well).unlink(missing_ok=True)
    project.runnable("run", "--run-id", run, *options, code=1)
    (project.folder / well).touch()
    project.runnable("retry", run, *options)
    assert project.read("trained.txt") == "3\n"
    assert project.read("copied.txt") == "4\n"
    assert "epoch 1" not in project.runnable("logs", run, "training").out
