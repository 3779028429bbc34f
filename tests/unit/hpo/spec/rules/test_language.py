"""The language of rules: it computes what Python does, and refuses with the place and a remedy."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.errors import SpecError
from hpo.spec.rules import RuleError, read_rule
from hpo.spec.rules.kinds import Setting
from hpo.spec.rules.text import MOST_CHARACTERS

from ...records import spec_with

NUMBERS = st.one_of(st.integers(-20, 20), st.sampled_from([0.5, 0.1, 1e-3, 3.0, 2.5, 1e6]))
VALUES = st.fixed_dictionaries({"a": NUMBERS, "b": NUMBERS, "c": NUMBERS})


def _values(depth: int) -> st.SearchStrategy[str]:
    leaf = st.one_of(
        st.sampled_from(["a", "b", "c"]), st.sampled_from(["0", "1", "2", "7", "0.5", "1e-3", ".25", "3."])
    )
    if depth == 0:
        return leaf
    inner = _values(depth - 1)
    return st.one_of(
        leaf,
        st.builds("{} {} {}".format, inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner),
        st.builds("({})".format, inner),
        st.builds("-{}".format, inner),
        st.builds("{} ** {}".format, leaf, st.sampled_from(["2", "3", "-1", "0"])),
        st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), inner, inner),
        st.builds("abs({})".format, inner),
    )


def _statements(depth: int) -> st.SearchStrategy[str]:
    values = _values(2)
    signs = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
    leaf = st.one_of(
        st.builds("{} {} {}".format, values, signs, values),
        st.builds("{} {} {} {} {}".format, values, signs, values, signs, values),
        st.builds("{} {} [1, 2.5, -3]".format, values, st.sampled_from(["in", "not in"])),
    )
    if depth == 0:
        return leaf
    inner = _statements(depth - 1)
    return st.one_of(
        leaf,
        st.builds("{} {} {}".format, inner, st.sampled_from(["and", "or"]), inner),
        st.builds("not {}".format, inner),
        st.builds("({})".format, inner),
    )


def _by_python(text: str, values: dict[str, Any]) -> bool:
    try:
        return eval(text, {"min": min, "max": max, "abs": abs}, dict(values)) is True  # noqa: S307 - the oracle
    except (ArithmeticError, TypeError):
        return False  # a rule that cannot be computed does not hold


@given(text=_statements(2), values=VALUES)
@settings(max_examples=400, deadline=None)
def test_a_rule_holds_where_the_same_expression_is_true_in_python(text: str, values: dict[str, Any]) -> None:
    assert read_rule(text).holds(values) == _by_python(text, values)


@given(text=_statements(2), values=VALUES)
@settings(max_examples=200, deadline=None)
def test_the_gap_is_zero_exactly_where_the_rule_holds(text: str, values: dict[str, Any]) -> None:
    rule = read_rule(text)
    assert (rule.gap(values) == 0) == rule.holds(values)


@given(text=st.text(alphabet="ab12.+-*/%<>=!()[], \"'notifhedvs", max_size=40))
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_or_refused_at_a_place_within_it(text: str) -> None:
    place = _place_refused(text)
    assert place is None or 0 <= place[0] <= place[1] <= len(text)


def _place_refused(text: str) -> tuple[int, int] | None:
    try:
        read_rule(text)
    except RuleError as error:
        return error.start, error.end
    return None


@pytest.mark.parametrize(
    ("text", "values", "holds"),
    [
        ("4 divides a", {"a": 12}, True),
        ("4 divides a", {"a": 13}, False),
        ("a divides 0", {"a": 5}, True),
        ("0 divides a", {"a": 5}, False),
        ("if a > 1 then b > 1", {"a": 0, "b": 0}, True),
        ("if a > 1 then b > 1", {"a": 2, "b": 0}, False),
        ("if a > 1 then if b > 1 then c > 1", {"a": 2, "b": 2, "c": 0}, False),
        ("if a > 1 or b > 1 then c > 1", {"a": 0, "b": 2, "c": 0}, False),
        ("default(a, 8) divides b", {"b": 16}, True),
        ("default(a, 8) divides b", {"b": 12}, False),
        ("default(a, 8) divides b", {"a": 4, "b": 12}, True),
        ("m == \"x\" or m == 'y'", {"m": "y"}, True),
        ("m in ['x', 'y']", {"m": "z"}, False),
        ("f == true", {"f": 1}, False),  # 1 is a number, and true is none
        ("f == true", {"f": True}, True),
        ("not f", {"f": False}, True),
        ("2 ** 100 > a", {"a": 1}, True),
        ("1 ** 100000 == a", {"a": 1}, True),
        ("clip.frames * 2 >= model.alpha", {"clip.frames": 4, "model.alpha": 8}, True),
    ],
)
def test_what_python_does_not_have(text: str, values: dict[str, Any], holds: bool) -> None:
    assert read_rule(text).holds(values) is holds


def test_a_rule_says_nothing_about_a_configuration_without_what_it_mentions() -> None:
    assert read_rule("a > 100 and b > 1").holds({"b": 0})


@pytest.mark.parametrize(
    "text", ["a / b <= 2", "9 ** 9 ** 9 ** 9 > a", "(a - 2) ** 0.5 < 3", "1e300 ** 2 > 1", "9 ** 2000 > a"]
)
def test_a_rule_that_cannot_be_computed_does_not_hold(text: str) -> None:
    assert not read_rule(text).holds({"a": 1, "b": 0})


@pytest.mark.parametrize(
    ("text", "character", "words"),
    [
        ("a = 3", 3, "write == to compare"),
        ("a & b", 3, "write and, or, not"),
        ("a <", 4, "the rule ends"),
        ("", 1, "the rule ends"),
        ("a < b b", 7, "join comparisons with and, or"),
        ("(a < b", 7, "close the bracket"),
        ("a in b", 6, "as a list"),
        ("a in []", 7, "a number, a text in quotes"),
        ("a not 3", 7, "'in' is expected"),
        ("if a < b", 9, "if CONDITION then RULE"),
        ("a == 'x", 6, "close it with another '"),
        ("3x < 4", 1, "no name begins with a digit"),
        ("abs(a, b) < 1", 1, "abs takes one value"),
        ("max(a) < 1", 1, "max takes two values or more"),
        ("default(3, 4) < 1", 9, "a name is expected"),
        ("__import__('os') == 1", 11, "does not continue like this"),
        ("a.b() < 1", 4, "does not continue like this"),
        ("lambda: 1", 7, "':' has no meaning in a rule"),
        ("1e999 < a", 1, "too large"),
        ("(" * 30 + "a < 1" + ")" * 30, 25, "nested more than 24 deep"),
        ("not " * 30 + "a < 1", 97, "nested more than 24 deep"),
        ("a < " + "1 + " * MOST_CHARACTERS + "1", 1, f"at most {MOST_CHARACTERS} each"),
    ],
)
def test_a_text_that_is_not_a_rule_is_refused_with_the_place_and_the_remedy(
    text: str, character: int, words: str
) -> None:
    with pytest.raises(RuleError) as found:
        read_rule(text)
    assert (found.value.start + 1, words in str(found.value)) == (character, True), str(found.value)


SETTINGS = {
    "lr": Setting(frozenset({"number"})),
    "optimizer": Setting(frozenset({"text"}), ("sgd", "adamw")),
    "nesterov": Setting(frozenset({"truth"})),
    "mixed": Setting(frozenset({"text", "number"}), ("auto", 3)),
    "clip.mean": Setting(frozenset()),
}


@pytest.mark.parametrize(
    ("text", "written", "words"),
    [
        ("lr2 > 1", "lr2", "did you mean lr?"),
        ("adam == lr", "adam", "write text in quotes"),
        ("lr + optimizer > 1", "optimizer", "is text, and a number is needed"),
        ("nesterov < 1", "nesterov", "is true or false, and a number is needed"),
        ("lr divides optimizer", "optimizer", "a number is needed"),
        ("lr == 'x'", "'x'", "is text, which is never equal to a number"),
        ("nesterov == 1", "1", "is a number, which is never equal to true or false"),
        ("lr in ['x', 1]", "'x'", "is never equal"),
        ("optimizer == 'sdg'", "'sdg'", "did you mean 'sgd'?"),
        ("'sdg' == optimizer", "'sdg'", "did you mean 'sgd'?"),
        ("optimizer in ['sgd', 'lion']", "'lion'", "is not a value of optimizer"),
        ("lr + 1", "lr + 1", "a rule compares"),
        ("lr", "lr", "a rule compares"),
        ("lr and lr > 1", "lr", "join comparisons"),
        ("if optimizer then lr > 1", "optimizer", "join comparisons"),
        ("clip.mean == 1", "clip.mean", "is not set, or not to a single value"),
        ("default(optimizer, 3) + 1 == lr2", "lr2", "did you mean lr?"),
    ],
)
def test_a_rule_without_a_meaning_here_is_refused_at_its_part(text: str, written: str, words: str) -> None:
    (message,) = read_rule(text).problems(SETTINGS)
    place = f"in the rule `{text}`, at character {text.index(written) + 1}: `{written}` "
    assert message.startswith(place), message
    assert words in message


@pytest.mark.parametrize("text", ["if mixed != 'auto' then mixed * 2 <= 6", "nesterov", "not nesterov or lr > 1"])
def test_a_rule_with_a_meaning_has_no_problem(text: str) -> None:
    assert list(read_rule(text).problems(SETTINGS)) == []


def test_spec_with_a_wrong_rule_names_its_place() -> None:
    with pytest.raises(
        SpecError, match=r"^rules\[1\]: in the rule `lr >= modle`, at character 7: `modle` has no value"
    ):
        spec_with(rules=["lr > 0", "lr >= modle"])


@pytest.mark.parametrize(
    "text", ["true == (true == (x == 1))", "((x < 1) != true) in [true]", "4 <= (((x in [1, 2]) == true) + 1) <= 8"]
)
def test_comparisons_of_comparisons_are_not_compared(text: str) -> None:
    """Chains of them, nested in one another, would take exponential time to check."""
    with pytest.raises(RuleError, match="compares a comparison already"):
        read_rule(text)
    assert read_rule("true == (x == 1)").holds({"x": 1})
