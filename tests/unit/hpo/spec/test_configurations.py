"""Counting the configurations of a space, against listing every combination of values."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.spec import StudySpec, parse_spec, stored_spec
from hpo.spec import configurations as module
from hpo.spec.configurations import configurations, count_configurations
from hpo.spec.values import all_values

from .specs import VALID

RULES = (
    "clip.frames * batch_size <= 64",
    "if model == 'a' then batch_size <= 2",
    "model.alpha divides clip.frames",
    "clip.stride < model.alpha",
    "clip.frames > 1",
    "dropout < 0.5",
)
CHOICES = st.lists(st.integers(1, 8), min_size=1, max_size=4, unique=True).map(sorted)


@st.composite
def finite(draw: st.DrawFn) -> StudySpec:
    """Return a study over a finite space, with conditions and rules over parameters and over a setting of base."""
    space: dict[str, Any] = {"model": {"type": "categorical", "choices": ["a", "b", "c"]}}
    for key in ("batch_size", "clip.stride", "clip.frames"):
        if draw(st.booleans()):
            space[key] = {"type": "ordinal", "choices": draw(CHOICES)}
    if draw(st.booleans()):
        space["model.alpha"] = {"type": "ordinal", "choices": draw(CHOICES), "when": {"model": ["a", "b"]}}
        if draw(st.booleans()):
            few = space["model.alpha"]["choices"][:1]
            space["model.gate"] = {"type": "categorical", "choices": [True, False], "when": {"model.alpha": few}}
    if draw(st.booleans()):
        space["dropout"] = {"type": "float", "low": 0.0, "high": 0.75, "step": 0.25}
    rules = [rule for rule in RULES if draw(st.booleans())]
    kept = [rule for rule in rules if "alpha" not in rule or "model.alpha" in space]
    raw = {key: value for key, value in VALID.items() if key != "space"}
    return StudySpec.model_validate({**raw, "space": space, "rules": kept})


def listed(spec: StudySpec) -> set[frozenset[tuple[str, Any]]]:
    """Return the configurations by trying every combination of values of all parameters."""
    combinations = itertools.product(*map(all_values, spec.space.values()))
    found = (spec.active(dict(zip(spec.space, values, strict=True))) for values in combinations)
    return {frozenset(params.items()) for params in found if spec.allows(params)}


@given(spec=finite())
@settings(max_examples=150, deadline=None)
def test_the_configurations_are_those_of_all_combinations(spec: StudySpec) -> None:
    expected = listed(spec)
    found = [frozenset(params.items()) for params in configurations(spec)]
    assert count_configurations(spec) == len(found) == len(expected)
    assert set(found) == expected


def spec_of(space: dict[str, Any], rules: list[str] | None = None) -> StudySpec:
    return parse_spec({**VALID, "space": space, "rules": rules or []})


@pytest.mark.parametrize("parameter", [{"low": 0.0, "high": 0.5}, {"low": 0.1, "high": 0.5, "log": True}])
def test_a_continuous_space_has_no_number(parameter: dict[str, Any]) -> None:
    spec = spec_of({"dropout": {"type": "float", **parameter}, "clip.stride": {"type": "int", "low": 1, "high": 2}})
    assert count_configurations(spec) is None
    assert list(configurations(spec)) == []


def test_a_range_of_more_values_than_there_is_memory_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    # No study gets such a step any more, but one may have it.
    spec = stored_spec({**VALID, "space": {"dropout": {"type": "float", "low": 0.0, "high": 0.5, "step": 1e-9}}})
    monkeypatch.setattr(module, "all_values", lambda _: pytest.fail("its values would be listed"))
    assert count_configurations(spec) is None


def test_large_spaces_are_counted_by_their_parts_or_given_up_in_bounded_time() -> None:
    wide = {key: {"type": "int", "low": 1, "high": 256} for key in ("batch_size", "clip.frames", "clip.stride")}
    started = time.perf_counter()
    assert count_configurations(spec_of(wide)) == 256**3
    assert count_configurations(spec_of(wide, ["batch_size < 3"])) == 2 * 256**2
    assert (
        count_configurations(spec_of(wide, ["batch_size < 3", "clip.frames * clip.stride * batch_size < 99"])) is None
    )
    assert time.perf_counter() - started < 10
