"""Tests of what we write for GitHub's runner: read back by its own rules, it is what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from actions_runner import Command, Runner, variables
from hypothesis import example, given
from hypothesis import strategies as st

from runnable_ci.github.commands import (
    Annotation,
    add_mask,
    annotate,
    annotate_all,
    append,
    assignments,
    command,
    cut,
    group,
    new_token,
    resume_commands,
    stop_commands,
    text_of,
)
from runnable_ci.util.text import escape_commands

HOSTILE = st.text(st.sampled_from(list("a:,%=;#[] \n\r\t<0A2DE]é\u200d\u2028😀\udcff")) | st.characters(), max_size=40)


def read(*lines: str) -> Runner:
    """What the runner makes of these lines."""
    return Runner().read("".join(f"{line}\n" for line in lines).encode(errors="surrogatepass"))


@given(HOSTILE, HOSTILE, HOSTILE)
@example("50%0A done", "a:b,c", "100%25")
def test_a_command_is_read_as_it_was_meant(message: str, title: str, file: str) -> None:
    """Whatever stands in the data and properties, the runner sees that one command with just these texts."""
    found = read(command("error", message, {"title": title, "file": file})).commands
    written = {"title": text_of(title), "file": text_of(file)}
    assert [(one.name, one.data) for one in found] == [("error", text_of(message))]
    # The runner takes spaces around all properties away.
    assert {key: text.strip() for key, text in found[0].properties.items()} == {
        key: text.strip() for key, text in written.items() if text
    }


@given(HOSTILE)
def test_harmless_text_is_no_command(text: str) -> None:
    """Text of ours that quotes what others wrote makes the runner do nothing."""
    assert read(escape_commands(text)).commands == []


@pytest.mark.parametrize(
    "line",
    [
        "::set-output name=x::y",
        "  ::set-output name=x::y",
        "\u00a0::add-mask::x",
        "fine\r::add-mask::x",
        "before ##[add-mask]x",
        "##[group]x",
        "::warning::",
        "a\n::debug::x",
    ],
)
def test_a_line_that_is_a_command_is_one_no_more(line: str) -> None:
    """The runner's own rules take the line for a command, and not what `escape_commands` makes of it."""
    assert read(line).commands
    assert read(escape_commands(line)).commands == []


@pytest.mark.parametrize("text", ["std::vector", "a ::b::", "# [x]", "12:30::00"])
def test_harmless_leaves_other_text_alone(text: str) -> None:
    """Colons and signs that make no command stay as they are."""
    assert escape_commands(text) == text


def test_stopped_commands_are_not_obeyed() -> None:
    """Between stop and resume nothing is a command, afterwards lines are again."""
    token = new_token()
    runner = read(
        stop_commands(token), "::error::no", "##[error]no", "::resume::", resume_commands(token), "::error::y"
    )
    assert runner.commands == [Command("error", "y")]
    assert not runner.stop_token


def test_tokens_differ() -> None:
    """Each token has 160 random bits."""
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert {len(token) for token in tokens} == {40}


def test_a_group_has_one_line() -> None:
    """A title with a line end would be two lines of the log."""
    assert read(group("a\n::error::b")).shown == ["##[group]a ::error::b"]


def test_each_line_of_a_secret_is_masked() -> None:
    """The log is masked line by line: each line is a secret, and none comes twice."""
    secret = "first-100%\r\n\n  \n  second-line\nfirst-100%\n"
    assert [one.data for one in read(*add_mask(secret)).of("add-mask")] == ["first-100%", "second-line"]
    assert [one.data for one in read(*add_mask(" 4711\n")).of("add-mask")] == ["4711"]


@pytest.mark.parametrize(
    "line", ["{", "}", "  },", "--", "---", "[", "", "EOF", "----------", "=" * 64, "}}}}]]]],,", '"a": [']
)
def test_a_line_that_other_text_has_is_no_mask(line: str) -> None:
    """A bracket as a mask would blot out each one of the job's log."""
    masks = read(*add_mask(f'{{\n"key": "0aB1cD2e"\n{line}\n}}')).of("add-mask")
    assert [one.data for one in masks] == ['"key": "0aB1cD2e"']


def test_the_borders_of_a_pem_block_are_no_masks() -> None:
    """They are those of each other key and certificate."""
    masks = read(*add_mask("-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIAbc\n-----END EC PRIVATE KEY-----\n")).of(
        "add-mask"
    )
    assert [one.data for one in masks] == ["MHcCAQEEIAbc"]


def test_a_quote_is_masked_as_a_traced_command_shows_it() -> None:
    """The runner derives the other escaped forms of a value itself."""
    masks = read(*add_mask("u:pa'ss")).of("add-mask")
    assert [one.data for one in masks] == ["u:pa'ss", r"u:pa'\''ss"]


@pytest.mark.parametrize("secret", ["", " \n", "{", "abc", "\r\n\r\n"])
def test_what_is_too_short_is_no_mask(secret: str) -> None:
    """A mask of three characters would leave nothing of a log."""
    assert add_mask(secret) == []


def test_a_long_message_is_cut_in_whole_characters() -> None:
    """The runner keeps 4,096 units of UTF-16; a character of two is not torn."""
    assert cut("a" * 4096) == "a" * 4096
    for text in ("a" * 4097, "😀" * 2049, "a" + "😀" * 2048):
        assert len(cut(text).encode("utf-16-le")) // 2 in (4095, 4096)
        assert text.startswith(cut(text)[:-1])
        assert cut(text).endswith("…")


def test_a_line_needs_its_file() -> None:
    """A line number without a file would point into nothing."""
    assert read(annotate(Annotation("error", "m", line=3))).commands == [Command("error", "m")]
    found = read(annotate(Annotation("warning", "m", "a\nb", "src/a,b.py", 3))).commands
    assert found == [Command("warning", "m", {"title": "a b", "file": "src/a,b.py", "line": "3"})]


@pytest.mark.parametrize(("count", "last"), [(9, "8"), (10, "9"), (11, "and 2 more: see the log and the summary")])
def test_no_more_annotations_than_the_runner_keeps(count: int, last: str) -> None:
    """Of each level ten; where there are more, the tenth says how many."""
    errors = [Annotation("error", str(i)) for i in range(count)]
    found = read(*annotate_all([*errors, Annotation("notice", "n")])).commands
    assert len([one for one in found if one.name == "error"]) == min(count, 10)
    assert next(one.data for one in reversed(found) if one.name == "error") == last
    assert [one.data for one in found if one.name == "notice"] == ["n"]


@given(st.dictionaries(st.sampled_from(["a", "run-id", "A_1"]), HOSTILE))
@example({"a": "x<<EOF\nb=c\nEOF"})
def test_a_value_cannot_break_the_file(values: dict[str, str]) -> None:
    """The runner reads each value as it was, and no other name."""
    assert dict(variables(assignments(values))) == {name: text_of(value) for name, value in values.items()}


def test_a_delimiter_in_the_value_is_not_used() -> None:
    """A delimiter that stands in the value would end it early."""
    delimiters = iter(["END", "LATER"])
    text = assignments({"a": "x\nEND\nb=c"}, delimiter=lambda: next(delimiters))
    assert dict(variables(text)) == {"a": "x\nEND\nb=c"}


@pytest.mark.parametrize("name", ["", "a=b", "a<<b", "a\nb", " a", "a\0"])
def test_a_name_that_would_be_another_is_refused(name: str) -> None:
    """The file has no escape for names."""
    with pytest.raises(ValueError, match="cannot be the name"):
        assignments({name: "x"})


def test_lines_are_added_whole(tmp_path: Path) -> None:
    """What someone left without a line end does not swallow the next line."""
    file = tmp_path / "env"
    append(file, "a=1\n")
    with file.open("a") as opened:
        opened.write("b=2")
    append(file, assignments({"c": "3"}))
    assert dict(variables(file.read_text())) == {"a": "1", "b": "2", "c": "3"}
