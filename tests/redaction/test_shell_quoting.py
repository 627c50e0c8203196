"""Redaction of what real shells print of a variable, above all with `set -x`."""

from __future__ import annotations

import subprocess

import pytest

from runnable_ci.redaction.redactor import Redactor

SECRETS = [
    *("u:pa'ss-w0rd", "''tw0 'quot3s''", 'b4ck\\sl4sh "and" $dollar `tick`', "t4b\there\x01"),
    *("two l1nes\nof secr3t", "sécr3t ü€😀", "#h4sh ~tilde !bang"),
]
PRINTING = [
    *("IFS=; set -x; : $S", 'set -x; : "$S"', 'set -x; : "a $S b"', 'set -x; T="$S"'),
    *("export -p", "set", "printf '%s\\n' \"$S\""),
]
OF_BASH = ["printf '%q\\n' \"$S\"", 'echo "${S@Q}"', "declare -p S", 'set -x; : "{\\"a\\": \\"$S\\"}"']
WORDS = (b"w0rd", b"tw0", b"quot3s", b"4ck", b"sl4sh", b"t4b", b"here", b"l1nes", b"cr3t", b"h4sh", b"bang")


@pytest.mark.promise
@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    ("shell", "script"),
    [*(("dash", text) for text in PRINTING), *(("bash", text) for text in [*PRINTING, *OF_BASH])],
)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_what_a_shell_prints(shell: str, script: str, secret: str, locale: str) -> None:
    """Each word of the secret is gone from what comes on stdout and stderr."""
    environ = {"S": secret, "PATH": "/usr/bin:/bin", "LC_ALL": locale}
    done = subprocess.run([shell, "-c", script], env=environ, capture_output=True, timeout=30)
    printed = done.stdout + done.stderr
    words = [word for word in WORDS if word in printed]
    clean = Redactor([secret]).data(printed)
    assert words
    assert [word for word in words if word in clean] == [], (printed, clean)
