"""Tests of what a step asks to be masked: which lines are commands, their values, and that pieces change nothing."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence

import pytest
from actions_runner import Runner
from hypothesis import given, settings
from hypothesis import strategies as st

from runnable_ci.errors import StepError
from runnable_ci.redaction.masks import VALUE_MAX_BYTES, MaskCommands, values_of_file
from runnable_ci.redaction.redactor import Redaction, Redactor


def commands_to(learn: Callable[[Sequence[str]], None]) -> MaskCommands:
    """What takes commands out, with the quick look that a run has for it."""
    return MaskCommands(learn, mentions_mask=Redaction(Redactor()).mentions_mask)


def taken(output: bytes, size: int = 1 << 20) -> tuple[bytes, list[str]]:
    """What is left of some output that comes in pieces of a size, and the values."""
    values: list[str] = []
    commands = commands_to(values.extend)
    rest = b"".join(commands.feed(output[i : i + size]) for i in range(0, len(output), size)) + commands.close()
    return rest, values


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("output", "rest", "values"),
    [
        (b"a\n::add-mask::s3cret\nb\n", b"a\nb\n", ["s3cret"]),
        (b"::add-mask::s3cret", b"", ["s3cret"]),
        (b"::add-mask::s3cret\r\nb\r\n", b"b\r\n", ["s3cret"]),
        (b"a\n \t ::add-mask::two words \nb", b"a\nb", ["two words "]),
        (b"::Add-Mask::s3cret\n", b"", ["s3cret"]),
        (b"::add-mask name=x,file=y::s3cret\n", b"", ["s3cret"]),
        (b"::add-mask::::s3cret::\n", b"", ["::s3cret::"]),
        (b"\xc2\xa0\xe2\x80\x83::add-mask::s3cret\n", b"", ["s3cret"]),
        (b"::add-mask::one%0Atwo%25%0D\n", b"", ["one\ntwo%\r", "one%0Atwo%25%0D"]),
        (b"::add-mask::one%0atwo%3B\n", b"", ["one%0atwo%3B"]),
        (b"##[add-mask]one%0Atwo%3B%5D\n", b"", ["one\ntwo;]", "one%0Atwo%3B%5D"]),
        (b"time 12:00 ##[add-mask]s3cret\nb\n", b"time 12:00 \nb\n", ["s3cret"]),
        (b"  ##[add-mask a=b]s3cret\nb\n", b"b\n", ["s3cret"]),
        (b"##[group]x ##[ADD-MASK]s3cret\nb\n", b"##[group]x \nb\n", ["s3cret"]),
        (b"10%\r::add-mask::s3cret\nb\n", b"10%\r\nb\n", ["s3cret"]),
        (b"::add-mask::one\r::add-mask::two\nb\n", b"b\n", ["one", "two"]),
        (b"::add-mask ##[add-mask]s3cret", b"::add-mask ", ["s3cret"]),
        (b"::add-mask::\xff\xe9\n", b"", ["\udcff\udce9"]),
        (b"::add-mask::\n::add-mask:: \nb\n", b"b\n", []),
        # none of these
        (b"a ::add-mask::s3cret\n", b"a ::add-mask::s3cret\n", []),
        (b"\xff::add-mask::s3cret\n", b"\xff::add-mask::s3cret\n", []),
        (b"::add-masks::x\n::add-mask:x\n::add-mask\n", b"::add-masks::x\n::add-mask:x\n::add-mask\n", []),
        (b"::add-mask no end\n##[add-mask\n] #[add-mask]\n", b"::add-mask no end\n##[add-mask\n] #[add-mask]\n", []),
        (b"::set-output name=add-mask::x\n", b"::set-output name=add-mask::x\n", []),
        (b"::add-", b"::add-", []),
        (b"  ", b"  ", []),
    ],
)
def test_commands(output: bytes, rest: bytes, values: list[str], size: int) -> None:
    """A command's line is taken out, and its value is that of the runner; what is like one stays."""
    assert taken(output, size) == (rest, values)


PIECES = [
    *(b"::add-mask::", b"##[add-mask]", b"::", b"##[", b"]", b"add-mask", b"Add-", b"MASK", b" a=b", b"::add-mask "),
    *(b"\n", b"\r", b"\r\n", b" ", b"\t", b"\xc2\xa0", b"\xff", b"%0A", b"%25", b"word", b"s3cret", b"a"),
    *(b"-----BEGIN RSA PRIVATE KEY-----", b"::add-mask::-----BEGIN EC PRIVATE KEY-----", b" " * 50),
]


@settings(deadline=None, max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join), st.integers(1, 30))
def test_any_split_gives_the_same(output: bytes, size: int) -> None:
    """Wherever the pieces end, the same is left, and the same is masked."""
    assert taken(output, size) == taken(output)


@settings(deadline=None, max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join))
def test_all_that_the_runner_masks(output: bytes) -> None:
    """What the runner would take for a mask is one, and it finds none in what is left."""
    rest, values = taken(output)
    masked = [one.data for one in Runner().read(output).of("add-mask") if one.data.strip()]
    plain = [value.encode(errors="surrogateescape").decode(errors="replace") for value in values]
    assert set(plain) >= {value for value in masked if not value.strip().startswith("-----BEGIN")}
    assert Runner().read(rest).of("add-mask") == []


@pytest.mark.parametrize("text", [b"Continue? [y/n] ", b"10% |###   |\r", b"a:", b"note: ::add-", b"step 3 of 7 #1"])
def test_a_prompt_appears_at_once(text: bytes) -> None:
    """A line without its end is not held back where it cannot become a command."""
    assert commands_to(lambda _: None).feed(text) in (text, text[:-2])  # `#1` cannot, `# ` could


def test_only_the_name_of_a_command_is_held_back() -> None:
    """What may become a command waits, and no more than that; it comes when it did not become one."""
    commands = commands_to(lambda _: None)
    assert commands.feed(b"a\n  ::add-m") == b"a\n"
    assert commands.feed(b"e, ##[add") == b"  ::add-me, "
    assert commands.feed(b"ress]\n") == b"##[address]\n"
    assert commands.feed(b"::add-mask x=" + b"y" * 5000) == b"::add-mask x=" + b"y" * 5000
    assert commands.feed(b"\n" + b" " * 5000) == b"\n" + b" " * 5000
    assert commands.feed(b"::add-mask::s3cret\n") == b""


def test_a_key_whose_lines_are_not_escaped() -> None:
    """The runner sees a mask that all keys begin with: the line stays without the command, to be known as a key's."""
    key = b"-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----\n"
    for size in (1, 1000):
        assert taken(b"a\n::add-mask::" + key, size) == (b"a\n" + key, [])
        assert taken(b"::add-mask::" + key.partition(b"\n")[0], size) == (key.partition(b"\n")[0], [])
        commands = b"".join(b"::add-mask::" + line for line in key.splitlines(keepends=True))
        assert taken(commands + b"a\n", size) == (b"a\n", ["MIIabc"])


def test_values_are_known_before_anything_is_given_out() -> None:
    """Also of what came before the command, but together with it."""
    events: list[str] = []
    commands = commands_to(events.extend)
    rest = commands.feed(b"s3cret\n::add-mask::s3cret\n")
    assert events == ["s3cret"]
    assert rest == b"s3cret\n"


def test_a_value_that_is_too_long() -> None:
    """It is an error, after which nothing of it comes out; memory is bounded."""
    commands = commands_to(lambda _: None)
    tracemalloc.start()
    try:
        rest = commands.feed(b"::add-mask::")
        with pytest.raises(StepError, match="more than 1 MiB"):
            for _ in range(100):
                rest += commands.feed(b"s3cret" * 10_000)
        rest += commands.feed(b"s3cret\nb")
        assert rest == b"b"
        assert tracemalloc.get_traced_memory()[1] < 6 * VALUE_MAX_BYTES
    finally:
        tracemalloc.stop()


def test_a_file_of_values() -> None:
    """A line is a value, and so is a block; a command is taken for its value, as who writes one expects."""
    content = b"one\r\n\n two \n<<EOF\nfirst\nsecond\nEOF\n::add-mask::a%0Ab\n<<open\nthree\nfour"
    values = ["one", " two ", "first\nsecond", "a\nb", "a%0Ab"]
    assert values_of_file(content, is_whole=False) == [*values, "three", "four"]
    assert values_of_file(content, is_whole=True) == [*values, "<<open", "three", "four"]
    assert values_of_file(b"-----BEGIN A-----\nMII%0A\n-----END A-----\n", is_whole=True) == ["MII%0A"]
    assert values_of_file(b"\xff", is_whole=True) == ["\udcff"]
