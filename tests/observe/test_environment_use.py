"""Tests of which variables a command may use."""

from __future__ import annotations

import pytest

from runnable_ci.observe.environment_use import variables_used

NAMES = ("alpha", "beta")


@pytest.mark.parametrize(
    "text",
    [
        "env | sort",
        "x=$(env)",
        "env -0 > all",
        "printenv",
        "envsubst < a.tmpl > a",
        "/usr/bin/env > all.txt",
        "export -p",
        "set | grep x",
        "declare -p",
        'for n in $list; do echo "${!n}"; done',
        "import os\nfor k, v in os.environ.items(): print(k)",
        "from os import environ\nprint(dict(environ))",
        "x = os.environ[name]",
        "x = os.getenv(key)",
        "cfg = {...process.env}",
        "ENV.each { |k, v| puts k }",
        "class S(BaseSettings): pass",
        'subprocess.run(["env"])',
        "jq . < $RUNNABLE_PARAMETERS",
    ],
)
def test_takes_the_whole_environment(text: str) -> None:
    """Where a text takes the whole environment each variable may be used, in the command or in a file it reads."""
    assert variables_used(NAMES, text, []) == {"alpha": "possible", "beta": "possible"}
    assert variables_used(NAMES, "python3 main.py", [text.encode()]) == {"alpha": "possible", "beta": "possible"}


@pytest.mark.parametrize(
    "text",
    [
        "python3 train.py",
        "#!/usr/bin/envoy\necho environment envelope",
        "x = os.environ['HOME']\ny = os.environ.get(\"PATH\", '')\nz = os.getenv('USER')",
        "const a = process.env.HOME, b = process.env['PATH']",
        "export A=1; set -euo pipefail; declare -x B=2",
        "ENV HOME=/root",
        "a-virtual-env is no command; alphabet is another word",
        ". .venv/bin/activate",
        "#!/usr/bin/env python3\nimport os",
        "env LANG=C sort x",
    ],
)
def test_uses_none(text: str) -> None:
    """Where a variable's name occurs nowhere, and nothing takes all of them, it is not used."""
    assert variables_used(NAMES, text, []) == {}
    assert variables_used(NAMES, "make all", [text.encode()]) == {}


def test_names_that_occur() -> None:
    """A name in the command is seen, one in a file that was read is possible, whatever its case."""
    assert variables_used(NAMES, 'echo "$alpha"', [b"BETA = 1"]) == {"alpha": "seen", "beta": "possible"}
