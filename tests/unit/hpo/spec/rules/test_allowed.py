"""What the rules of a study allow is found where there is any, however rare, and refused with the rule where not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.errors import SpecError
from hpo.spec import StudySpec, dump_spec, parse_spec, stored_spec
from hpo.spec.guesses import broken_by
from hpo.spec.rules import allowed, examples, nearest
from hpo.spec.values import all_values, value_at

from ...records import spec_with
from ..specs import spaces

FRAMES: dict[str, Any] = {"type": "int", "low": 4, "high": 32}
ALPHA: dict[str, Any] = {"type": "ordinal", "choices": [2, 4, 8]}
LR: dict[str, Any] = {"type": "float", "low": 1e-4, "high": 0.1, "log": True}
GRID: dict[str, Any] = {"clip.frames": FRAMES, "model.alpha": ALPHA, "lr": LR}


def _spec(*rules: str, space: dict[str, Any] = GRID, **sections: Any) -> StudySpec:
    return spec_with(space=space, rules=list(rules), **sections)


def test_a_finite_part_of_the_space_is_found_whole() -> None:
    spec = _spec("model.alpha divides clip.frames", "clip.frames * batch_size <= 128")
    wanted = {(f, a) for f, a in itertools.product(range(4, 33), (2, 4, 8)) if f % a == 0 and f * 8 <= 128}
    found = [(values["clip.frames"], values["model.alpha"]) for values in allowed(spec.rulebook)]
    assert len(found) == len(wanted)
    assert set(found) == wanted


RARE = {
    "one point of a range": "lr <= 0.0001",
    "one value of 10,000": "batch_size == 1234",
    "a narrow band": "lr * 3 <= weight_decay and lr * 3.0003 >= weight_decay",
    "a number that a rule names": "momentum == 0.875",
    "a corner of three parameters": "lr + weight_decay + momentum >= 1.4999 and batch_size >= 4000",
    "a corner to which no slope leads": "(lr * 2 >= 0.2 and momentum * 2 <= 1 and weight_decay >= 0.5) == true",
}


@pytest.mark.parametrize("rule", RARE.values(), ids=RARE)
def test_a_rare_configuration_is_found(rule: str) -> None:
    space = {
        "lr": LR,
        "weight_decay": {"type": "float", "low": 1e-4, "high": 0.5, "log": True},
        "momentum": {"type": "float", "low": 0.5, "high": 0.9},
        "batch_size": {"type": "int", "low": 1, "high": 4096, "log": True},
    }
    assert examples(_spec(rule, space=space).rulebook)


@pytest.mark.parametrize(
    ("rules", "path", "words"),
    [
        (["lr > 0.1"], "rules[0]", "keeps the rule `lr > 0.1` (4096 combinations of lr were tried, and a search"),
        (["lr > 0", "clip.frames > 40"], "rules[1]", "`clip.frames > 40` (all 29 combinations of clip.frames"),
        (["batch_size > 8"], "rules[0]", "nothing that it mentions varies"),
        (["lr > 0", "clip.frames < 8", "model.alpha > 4", "model.alpha divides clip.frames"], "rules[3]",
         "`model.alpha divides clip.frames` together with `clip.frames < 8` and `model.alpha > 4` (all 87"),
    ],
)  # fmt: skip
def test_a_study_in_which_nothing_is_allowed_is_refused_with_the_rule(rules: list[str], path: str, words: str) -> None:
    with pytest.raises(SpecError) as found:
        _spec(*rules)
    (issue,) = found.value.issues
    assert issue.path == path
    assert words in issue.message
    assert issue.message.endswith("widen the space, or change the rule")


def test_a_rule_without_its_conditional_parameter_holds() -> None:
    spec = spec_with(rules=["model.alpha >= 8"])
    assert spec.allows({"lr": 0.1, "weight_decay": 1e-4, "model": "r2plus1d_18"})
    assert spec.allows({"lr": 0.1, "weight_decay": 1e-4, "model": "slowfast_r50_4x16", "model.alpha": 8})
    assert not spec.allows({"lr": 0.1, "weight_decay": 1e-4, "model": "slowfast_r50_4x16", "model.alpha": 4})


@given(raw=spaces(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_columns_are_judged_as_configurations_are(raw: dict[str, Any], data: st.DataObject) -> None:
    numbers = [key for key, parameter in raw.items() if parameter["type"] != "categorical"]
    rules = ["model != 'b'", *([f"{numbers[0]} * 3 <= {raw[numbers[0]].get('high', 64)}"] if numbers else [])]
    raw["model.gate2"] = {"type": "categorical", "choices": [True], "when": {"model": ["a"]}}
    spec = StudySpec.model_validate(spec_with(space=raw).model_dump() | {"rules": [*rules, "model.gate2 == false"]})
    rows = [
        {
            key: value_at(parameter, data.draw(st.floats(0, 1, exclude_max=True)))
            for key, parameter in spec.space.items()
        }
        for _ in range(8)
    ]
    columns = [[row[key] for row in rows] for key in spec.rulebook.keys]
    judged = [spec.allows(spec.active(row)) for row in rows]
    assert spec.rulebook.allows_columns(columns) == judged
    assert all(not ok for row, ok in zip(rows, judged, strict=True) if row["model"] in ("a", "b"))


def test_the_nearest_of_a_grid_is_the_nearest() -> None:
    spec = _spec("model.alpha divides clip.frames")
    for frames, alpha in [(5, 2), (13, 4), (31, 8), (9, 8)]:
        first = next(nearest(spec.rulebook, {"clip.frames": frames, "model.alpha": alpha, "lr": 0.01}))
        # One step of alpha is a third of its range, and one of the frames a 29th: so alpha stays.
        assert first["model.alpha"] == alpha
        multiples = [value for value in all_values(spec.space["clip.frames"]) if int(value) % alpha == 0]
        assert abs(int(first["clip.frames"]) - frames) == min(abs(int(value) - frames) for value in multiples)


def test_the_nearest_of_a_range_lies_at_the_edge_of_what_is_allowed() -> None:
    spec = _spec("lr <= 0.01")
    first = next(nearest(spec.rulebook, {"lr": 0.05, "clip.frames": 8, "model.alpha": 2}))
    assert 0.0099 < float(first["lr"]) <= 0.01


@pytest.mark.parametrize(
    ("guess", "words"),
    [
        ({"clip.frames": 12, "model.alpha": 8}, "(model.alpha = 8, clip.frames = 12)"),
        ({"clip.frames": 7}, "with this guess no model.alpha was found that keeps `model.alpha divides clip.frames`"),
        ({"lr": 0.05}, "this guess breaks the rule `lr <= 0.01` (lr = 0.05)"),
        ({"clip.frames": 6}, None),
        ({"model.alpha": 8}, None),
        ({"clip.frames": 16, "model.alpha": 8, "lr": 0.001}, None),
    ],
)
def test_a_guess_that_breaks_a_rule_is_refused_with_the_rule(guess: dict[str, Any], words: str | None) -> None:
    rules = ["model.alpha divides clip.frames", "lr <= 0.01"]
    found = list(broken_by(_spec(*rules).rulebook, [guess]))
    if words is None:
        assert found == []
        assert _spec(*rules, optimizer={"enqueue": [guess]})
        return
    with pytest.raises(SpecError) as error:
        _spec(*rules, optimizer={"enqueue": [{"lr": 0.002}, guess]})
    assert [(issue.path, words in issue.message) for issue in error.value.issues] == [("optimizer.enqueue[1]", True)]


def test_the_check_of_guesses_ends_after_a_few_that_leave_no_way() -> None:
    book = _spec("model.alpha divides clip.frames").rulebook
    hopeless = [{"clip.frames": frames} for frames in (5, 7, 9, 11, 13)]
    assert [place for place, _ in broken_by(book, hopeless)] == [0, 1, 2]
    wrong = [{"clip.frames": frames, "model.alpha": 8} for frames in (5, 7, 8, 9, 11, 13)]
    assert [place for place, _ in broken_by(book, wrong)] == [0, 1, 3, 4, 5]


def test_contradicting_rules_among_many_are_found_and_named() -> None:
    others = [f"lr + clip.frames * {number} > 0" for number in range(20)]
    with pytest.raises(SpecError, match=r"rules\[21\]: .* `clip.frames < 8` together with `clip.frames \* 2 > 30` \("):
        _spec("clip.frames * 2 > 30", *others, "clip.frames < 8")


def test_rules_are_stored_and_read_and_a_spec_without_rules_is_written_as_before() -> None:
    spec = _spec("model.alpha divides clip.frames")
    assert stored_spec(dump_spec(spec)) == spec
    assert parse_spec(dump_spec(spec)) == spec
    assert {"rules", "model_rules"}.isdisjoint(dump_spec(_spec()))


def test_rules_of_models_are_kept_in_the_store_and_not_taken_from_a_person() -> None:
    spec = _spec().model_copy(update={"model_rules": ["model.alpha divides clip.frames"]})
    assert stored_spec(dump_spec(spec)).model_rules == spec.model_rules
    assert parse_spec(dump_spec(spec)).model_rules == []


def test_a_copy_with_other_rules_has_a_rulebook_of_its_own() -> None:
    spec = _spec("lr <= 0.01")
    assert not spec.allows({"lr": 0.05, "clip.frames": 8, "model.alpha": 2})
    assert spec.model_copy(update={"rules": []}).allows({"lr": 0.05, "clip.frames": 8, "model.alpha": 2})
    assert spec.rulebook is spec.model_copy(update={"constraints": []}).rulebook
