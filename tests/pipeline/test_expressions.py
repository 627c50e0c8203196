"""Tests of expressions: how they are read, what they are worth, what is said of wrong ones, and texts with them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from runnable_ci.pipeline.expressions import ExpressionError, parse, template
from runnable_ci.pipeline.expressions.syntax import (
    DEPTH_MAX,
    Call,
    Choose,
    Compare,
    ContextName,
    Items,
    Literal,
    Lookup,
    Node,
    Not,
    parse_tree,
    text_of,
)

CONTEXTS: dict[str, Any] = {
    "parameters": {
        "toss": "Heads",
        "depth": 3,
        "rate": 0.5,
        "flag": False,
        "none": None,
        "odd-name": "x",
        "list": [1, 2],
    },
    "matrix": {"rows": [{"name": "a", "size": 1}, {"name": "b"}, "text"], "pairs": {"p": {"name": "q"}}},
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-9.2", -9.2),
        ("0xFf", 255),
        ("0o17", 15),
        ("-2.99e-2", -0.0299),
        ("'it''s'", "it's"),
        ("null", None),
        ("true && false", False),
        ("'' || 'else'", "else"),
        ("0 || ''", ""),
        ("'a' && 'b'", "b"),
        ("parameters.toss == 'HEADS'", True),
        ("parameters['toss']", "Heads"),
        ("parameters.toss != 'heads'", False),
        ("parameters.depth > 2 && parameters.depth <= 3", True),
        ("!parameters.flag", True),
        ("!(1 == 2)", True),
        ("1 == 1 == true", True),
        ("1 < 2 == true", True),
        ("false && true || true", True),
        ("true || true && false", True),
        ("parameters.none == 0", True),
        ("parameters.nowhere", None),
        ("parameters.nowhere.deeper", None),
        ("parameters.odd-name", "x"),
        ("'0x10' == 16", True),
        ("'' == 0", True),
        ("'abc' == 0", False),
        ("NaN == NaN", False),
        ("true == 1", True),
        ("true == '1'", True),
        ("null == false", True),
        ("'b' > 'A'", True),
        ("'ten' > 2", False),
        ("parameters.list[1]", 2),
        ("parameters.list[2]", None),
        ("parameters.list['0']", 1),
        ("parameters.list == fromJSON('[1, 2]')", True),
        ("matrix.rows.*.name", ["a", "b"]),
        ("matrix.rows[*].size", [1]),
        ("matrix.pairs.*.name", ["q"]),
        ("matrix.rows.*.nothing", []),
        ("parameters.depth.*", []),
        ("contains('Hello', 'LL')", True),
        ("contains(parameters.list, '2')", True),
        ("contains(parameters.list, 3)", False),
        ("startsWith('Hello', 'he')", True),
        ("ENDSWITH('Hello', 'LO')", True),
        ("format('{0} {{1}} {1}{0}', 'a', 2)", "a {1} 2a"),
        ("join(parameters.list)", "1,2"),
        ("join(matrix.rows.*.name, ' + ')", "a + b"),
        ("join('alone')", "alone"),
        ('fromJSON(\'{"a": [1, {"b": null}]}\').a[0]', 1),
        ("toJSON(parameters.list)", "[\n  1,\n  2\n]"),
        ("files('*.csv')", ["*.csv.1"]),
    ],
)
def test_values(text: str, value: Any) -> None:
    """An expression has the value that GitHub gives it, and the caller's functions are called by any spelling."""
    found = parse(text).evaluate(CONTEXTS, {"Files": lambda glob: [f"{glob}.1"]})
    assert found == value
    assert type(found) is type(value) or isinstance(found, list)


@pytest.mark.parametrize(
    ("text", "at", "message", "hint"),
    [
        ("", 0, "it is empty", "such as"),
        ("parameters.toss = 'heads'", 16, "an operator is missing at `= 'heads'`", "`==` compares"),
        ('parameters.toss == "heads"', 19, "a value is missing", "single quotes"),
        ("a and b", 2, "an operator is missing at `and b`", "`&&`"),
        ("not a", 4, "an operator is missing at `a`", ""),
        ("a & b", 2, "an operator", "`&&`"),
        ("1 + 1", 2, "an operator", "do not calculate"),
        ("(a", 2, "`)` is missing at its end", ""),
        ("a)", 1, "an operator is missing at `)`", ""),
        ("a.", 2, "a name is missing at its end", ""),
        ("a[1", 3, "`]` is missing", ""),
        ("f(1 2)", 4, "`,` is missing", ""),
        ("a ==", 4, "a value is missing at its end", ""),
        ("'it's'", 4, "an operator is missing at `s'`", ""),
        ("'open", 0, "a value is missing", "quote"),
        ("${{ a }}", 0, "a value is missing", "without"),
        ("1.2.3", 0, "a value is missing", ""),
        ("(" * 60 + "1" + ")" * 60, None, "nested more than 50 deep", ""),
        ("!" * 60 + "1", None, "nested more than 50 deep", ""),
        ("a" + ".b" * 60, None, "nested more than 50 deep", ""),
        ("1" + " == 1" * 60, None, "nested more than 50 deep", ""),
        ("'" + "a" * 30_000 + "'", 0, "longer than", ""),
        ("9" * 2000, 0, "too many digits", ""),
    ],
)
def test_what_does_not_parse(text: str, at: int | None, message: str, hint: str) -> None:
    """A text that is no expression is refused, with the character and what would be right."""
    with pytest.raises(ExpressionError) as refused:
        parse(text)
    assert message in refused.value.message
    assert hint in refused.value.hint
    assert at is None or refused.value.position == at


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("parameter.a", "there is no context `parameter`", "did you mean `parameters`?"),
        ("github.ref", "there is no context `github`", "the contexts here are: parameters, steps"),
        ("True", "there is no context `True`", "did you mean `true`?"),
        ("parameters.a && startswit('a', 'b')", "there is no function `startswit`", "did you mean `startsWith`?"),
        ("hashFiles('a')", "there is no function `hashfiles`", "the functions here are: contains"),
        ("contains('a')", "contains takes 2 arguments, not 1", ""),
        ("join()", "join takes 1 to 2 arguments, not 0", ""),
    ],
)
def test_what_is_not_known(text: str, message: str, hint: str) -> None:
    """Contexts and functions that there are not are found without a value of anything."""
    with pytest.raises(ExpressionError) as refused:
        parse(text).require(("parameters", "steps"), ("success",))
    assert refused.value.message == message
    assert hint in refused.value.hint


def test_what_the_place_adds_is_known() -> None:
    """A function of the place is no unknown one, whatever its arguments."""
    parse("SUCCESS() && success(1)").require((), ("success",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fromJSON('[')", "fromJSON: '[' is not JSON"),
        ("fromJSON('NaN')", "fromJSON: nan is not a JSON number"),
        ("format('{1}', 'a')", "format: there is no value for `{1}`"),
        ("format('{', 'a')", "format: a `{` stands alone"),
        ("files('a', 'b')", "files takes other arguments"),
        ("format('" + "{0}" * 2000 + "', parameters.long)", "more than 1048576 characters"),
    ],
)
def test_what_has_no_value(text: str, message: str) -> None:
    """A function says what it cannot do, and makes no endless text."""
    with pytest.raises(ExpressionError) as refused:
        parse(text).evaluate({"parameters": {"long": "x" * 1000}}, {"files": lambda glob: [glob]})
    assert message in refused.value.message


def test_doubling_ends() -> None:
    """Texts that double at each level end at a limit, not in memory."""
    text = "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'"
    for _ in range(40):
        text = f"format('{{0}}{{0}}', {text})"
    with pytest.raises(ExpressionError, match="characters"):
        parse(text).evaluate({})


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("matrix.sample", [("matrix", "sample")]),
        ("steps.a.outputs['b'] == needs.c.result", [("steps", "a", "outputs", "b"), ("needs", "c", "result")]),
        ("parameters[matrix.name].x", [("parameters",), ("matrix", "name")]),
        ("parameters.list[0].x", [("parameters", "list")]),
        ("steps.*.outcome", [("steps",)]),
        ("contains(fromJSON('[]'), env.A)", [("env", "A")]),
        ("1 == 2", []),
    ],
)
def test_references(text: str, paths: list[tuple[str, ...]]) -> None:
    """What an expression looks up is known without a value."""
    assert parse(text).references() == paths


def random_tree(chance: random.Random, depth: int) -> Node:
    """Any tree of at most this depth that text can write."""
    values = [None, True, False, 0, 7, 0.5, 1e300, "", "it's", "${{ }}", "Heads", "0x1F", "[1]"]
    leaves: list[Node] = [Literal(chance.choice(values)), ContextName(chance.choice(["parameters", "matrix"]))]
    if depth == 0 or chance.random() < 0.2:
        return chance.choice(leaves)

    def below() -> Node:
        return random_tree(chance, depth - 1)

    key = Literal(chance.choice(["toss", "depth", "list", "rows", "name", "a b", "0"]))
    kinds: list[Callable[[], Node]] = [
        lambda: Lookup(below(), key),
        lambda: Lookup(below(), below()),
        lambda: Items(below()),
        lambda: Not(below()),
        lambda: Compare(chance.choice(["==", "!=", "<", "<=", ">", ">="]), below(), below()),
        lambda: Choose(chance.choice(["&&", "||"]), tuple(below() for _ in range(chance.randint(2, 4)))),
        lambda: Call("contains", (below(), below())),
        lambda: Call("join", (below(),)),
    ]
    return chance.choice(kinds)()


@pytest.mark.parametrize("seed", range(300))
def test_any_tree_is_written_and_read(seed: int) -> None:
    """Writing a tree and reading that gives the tree, and binding its contexts changes no value."""
    tree = random_tree(random.Random(seed), 4)  # noqa: S311
    assert parse_tree(text_of(tree)) == tree
    expression = parse(text_of(tree))
    bound = expression.bound({"parameters": CONTEXTS["parameters"]})
    assert "parameters" not in {path[0] for path in bound.references()}
    assert same(parse(bound.text).evaluate(CONTEXTS), expression.evaluate(CONTEXTS))


@pytest.mark.parametrize("seed", range(300))
def test_logic_agrees_with_python(seed: int) -> None:
    """Of numbers and booleans the operators are Python's, with the same precedence and what is not evaluated."""
    chance = random.Random(seed)  # noqa: S311

    def made(depth: int) -> str:
        if depth == 0:
            return str(chance.choice([0, 1, 2, 3.5, "true", "false"]))
        sign = chance.choice(["==", "!=", "<", "<=", ">", ">=", "&&", "||"])
        text = f"({made(depth - 1)}) {sign} ({made(depth - 1)})"
        return f"!({text})" if chance.random() < 0.3 else text

    text = made(3)
    words = {"&&": "and", "||": "or", "true": "True", "false": "False"}
    python = text.replace("!(", "not (")
    for word, other in words.items():
        python = python.replace(word, other)
    assert parse(text).evaluate({}) == eval(python)  # noqa: S307 - of numbers and operators that were made above


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same, NaN and itself too."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("plain", "plain"),
        ("", ""),
        ("a-${{ parameters.depth }}/${{matrix.pairs.p.name}}.csv", "a-3/q.csv"),
        ("${{ format('}}{0}', 1) }}", "}1"),
        ("${{ '${{' }} stays", "${{ stays"),
        ("$ {{ }} }}", "$ {{ }} }}"),
        ("${{ parameters.list }}", "[1, 2]"),
        ("<${{ parameters.none }}>", "<>"),
        ("${{ parameters.rate }}", "0.5"),
    ],
)
def test_templates(text: str, rendered: str) -> None:
    """Expressions in a text are replaced by their values as text: lists as JSON, null as nothing."""
    assert template(text).render(CONTEXTS) == rendered


def test_a_value_is_escaped_and_the_text_is_not() -> None:
    """What the place needs escaped is so in the values alone."""
    escaped = template("*-${{ parameters.toss }}").render({"parameters": {"toss": "[1]*"}}, escape=lambda v: f"<{v}>")
    assert escaped == "*-<[1]*>"


def test_a_whole_text_may_be_any_value() -> None:
    """A text that is one expression is the value itself; one with more in it is text."""
    assert template("${{ parameters.list }}").value(CONTEXTS) == [1, 2]
    assert template(" ${{ parameters.list }}").value(CONTEXTS) == " [1, 2]"
    assert template("${{ parameters.list }}").is_value
    assert not template("list").is_value


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("${{ matrix.a }}-${{ steps.x.outputs.y }}", "it's-${{ steps.x.outputs.y }}"),
        ("${{ matrix.a == steps.x.outputs.y }}", "${{ 'it''s' == steps.x.outputs.y }}"),
        ("${{ matrix.evil }}", "${{ '${{ parameters.secret }}' }}"),
        ("${{ matrix.dollar }}{{ parameters.secret }}", "${{ '$' }}{{ parameters.secret }}"),
        ("$${{ matrix.half }}${{ files() }}", "$${{ '{{ parameters.secret }}' }}${{ files() }}"),
        ("${{ matrix[parameters.name] }}", None),
    ],
)
def test_a_part_of_the_contexts(text: str, bound: str | None) -> None:
    """What is known is put in place, the rest stays; no value becomes an expression."""
    contexts = {"matrix": {"a": "it's", "evil": "${{ parameters.secret }}", "half": "{{ parameters.secret }}"}}
    contexts["matrix"]["dollar"] = "$"
    others = {"parameters": {"secret": "SECRET", "name": "a"}, "steps": {"x": {"outputs": {"y": "out"}}}}
    found = template(text).bound(contexts)
    assert bound is None or found == bound
    again = template(found).render(others, {"files": lambda: ""})
    assert again == template(text).render({**contexts, **others}, {"files": lambda: ""})
    assert "SECRET" not in again


def test_an_open_expression_is_refused() -> None:
    """A text that begins an expression and does not end it is no text."""
    with pytest.raises(ExpressionError, match="is not closed") as refused:
        template("a ${{ '}}' ")
    assert refused.value.position == 2


def test_the_position_in_a_template_counts_from_its_begin() -> None:
    """A mistake within a text is found where it stands in the text."""
    with pytest.raises(ExpressionError) as refused:
        template("data/${{ a b }}.csv")
    assert refused.value.position == len("data/${{ a ")


def test_a_deep_tree_within_the_limit_has_a_value() -> None:
    """The deepest expression that is accepted is evaluated."""
    assert parse("!" * (DEPTH_MAX - 2) + "1").evaluate({}) is True
    assert math.isinf(parse("-1e999").evaluate({}))
