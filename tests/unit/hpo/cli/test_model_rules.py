"""The rules that a study gets from its models allow what the catalogue builds, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import models
from hpo.cli.spec_check import search_fragment, with_models
from hpo.errors import SpecError
from hpo.optimizer import create_optimizer
from hpo.spec import StudySpec, parse_spec
from hpo.spec.values import value_at
from hpo.trial import Params

LR: dict[str, Any] = {"type": "float", "low": 1e-4, "high": 0.1, "log": True}
CARDS = [models.model_info(name) for name in models.list_models()]
DEMANDING = [card.name for card in CARDS if card.rules or card.min_frames > 1]


def _spec(base: dict[str, Any], space: dict[str, Any], **sections: Any) -> StudySpec:
    task = {"dataset": {"root": "/videos", "flow": "dis"}, "base": base}
    raw = {"name": "s", "objectives": [{"metric": "val_top1"}], "task": task, "budget": {"trials": 40}}
    return parse_spec({**raw, "space": {"lr": LR, **space}, **sections}, search_fragment)


def _builds(spec: StudySpec, params: Params) -> bool:
    """Return whether the catalogue accepts the model and the clip of a configuration."""
    config = spec.trial_config(params, number=0)
    options = {key.removeprefix("model."): value for key, value in config.items() if key.startswith("model.")}
    try:
        models.resolve_hparams(models.model_info(config["model"]), options)
        models.check_clip(config["model"], frames=config["clip.frames"], size=config["clip.size"], hparams=options)
    except models.ModelError:
        return False
    return True


def _range(key: str, names: list[str]) -> tuple[int, int] | None:
    """Return the whole numbers that all of `names` accept for a setting; None where an option is a choice."""
    if key.startswith("clip."):
        return (1, 48) if key == "clip.frames" else (16, 48)
    found = [h.accepts for name in names for h in models.model_info(name).hparams if f"model.{h.name}" == key]
    ranges = [(accepts.low, accepts.high) for accepts in found if isinstance(accepts, models.Integer)]
    if len(ranges) < len(found):
        return None
    return max(low for low, _ in ranges), min(48, *(high for _, high in ranges))


def _owners(key: str, names: list[str]) -> list[str]:
    options = {name: [f"model.{option.name}" for option in models.model_info(name).hparams] for name in names}
    return [name for name in names if key.startswith("clip.") or key in options[name]]


@st.composite
def _studies(draw: st.DrawFn) -> StudySpec:
    """Return a study of one or two models: what their rules mention is fixed, searched, conditional or left out."""
    names = draw(st.lists(st.sampled_from(DEMANDING), min_size=1, max_size=2, unique=True))
    base: dict[str, Any] = {"model": names[0]} if len(names) == 1 else {}
    space: dict[str, Any] = {} if len(names) == 1 else {"model": {"type": "categorical", "choices": names}}
    space["nesterov"] = {"type": "categorical", "choices": [False, True]}
    mentioned = {option for name in names for r in models.model_info(name).rules for option in (r.divisor, r.of)}
    mentioned = (mentioned - {"frames"}) | {option for name in names for option in models.model_info(name).clip_options}
    keys = {f"model.{option}" for option in mentioned} | {"clip.frames", "clip.size"}
    for key in sorted(keys):
        owners, how = _owners(key, names), draw(st.sampled_from(["base", "space", "conditional", "absent"]))
        ends = _range(key, owners) if owners else None
        if ends is None:
            continue
        if how in ("base", "conditional") and owners == names:
            base[key] = draw(st.integers(*ends))
        if how in ("space", "conditional"):
            when: dict[str, Any] = {"nesterov": [True]} if how == "conditional" else {}
            searched = draw(st.sampled_from([owners, owners[:1]]))  # a model with the option may be left to its default
            when |= {"model": searched} if searched != names else {}
            space[key] = {"type": "int", "low": ends[0], "high": ends[1], "when": when}
    return _spec(base, space)


@given(spec=_studies(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_configuration_is_allowed_where_the_catalogue_accepts_it(spec: StudySpec, data: st.DataObject) -> None:
    try:
        spec = with_models(spec)
    except SpecError:
        assume(False)
    for _ in range(10):
        units = st.floats(0, 1, exclude_max=True)
        params = spec.active({key: value_at(parameter, data.draw(units)) for key, parameter in spec.space.items()})
        assert spec.allows(params) == _builds(spec, params), params


DIVIDES = {
    "model.alpha": {"type": "ordinal", "choices": [2, 4, 8]},
    "clip.frames": {"type": "int", "low": 4, "high": 32},
}


def test_a_rule_of_the_card_is_written_in_the_language_of_rules() -> None:
    spec = with_models(_spec({"model": "slowfast_r18"}, DIVIDES))
    assert spec.model_rules == ['if model == "slowfast_r18" then model.alpha divides clip.frames']
    assert spec.rules == []


@pytest.mark.parametrize(
    ("base", "space"),
    [
        ({"model": "slowfast_r18", "clip.frames": 32}, {"model.alpha": DIVIDES["model.alpha"]}),
        ({"model": "r2plus1d_18"}, {"clip.frames": DIVIDES["clip.frames"]}),
        ({}, {"include": ["slowfast_r18", "r2plus1d_18"]}),
    ],
)
def test_what_always_holds_is_no_rule(base: dict[str, Any], space: dict[str, Any]) -> None:
    assert with_models(_spec(base, space)).model_rules == []


def test_clips_that_a_model_is_scored_on_are_not_smaller_than_it_takes() -> None:
    least = models.model_info("s3d").min_size
    base = {"model": "s3d", "clip.frames": 32, "clip.size": 112}
    for size in (0, least, 128):
        assert with_models(_spec({**base, "clip.test_size": size}, {})).model_rules == []
    with pytest.raises(SpecError, match=f"clip.test_size must be 0 or at least {least}") as caught:
        with_models(_spec({**base, "clip.test_size": least - 1}, {}))
    assert [issue.path for issue in caught.value.issues] == ["task.base.clip"]
    searched = {"clip.test_size": {"type": "ordinal", "choices": [0, least - 1, least]}}
    spec = with_models(_spec(base, searched))
    allowed = [
        size for size in (0, least - 1, least) if spec.rulebook.broken({"lr": 0.01, "clip.test_size": size}) is None
    ]
    assert allowed == [0, least]


def test_a_model_of_one_size_gets_clips_of_that_size() -> None:
    base = {"model": "hf_video", "model.frames": 8, "clip.frames": 8, "model.size": 32, "clip.size": 32}
    assert with_models(_spec(base, {})).model_rules == []
    for key in ("frames", "size"):
        for place in ("model", "clip"):
            with pytest.raises(
                SpecError, match=rf"hf_video: model\.{key} must be clip\.{key}, and nothing in"
            ) as caught:
                with_models(_spec({**base, f"{place}.{key}": 16}, {}))
            assert [issue.path for issue in caught.value.issues] == ["task.base.clip"]
    with pytest.raises(SpecError, match=r"hf_video: clip\.test_size must be 0 or model\.size"):
        with_models(_spec({**base, "clip.test_size": 48}, {}))
    searched = {"clip.frames": {"type": "ordinal", "choices": [4, 8]}}
    spec = with_models(_spec(base, searched))
    assert spec.model_rules == ['if model == "hf_video" then model.frames == clip.frames']
    assert [frames for frames in (4, 8) if spec.allows({"lr": 0.01, "clip.frames": frames})] == [8]


def test_an_included_range_never_offers_what_a_fixed_setting_excludes() -> None:
    spec = with_models(_spec({"model.width": 8}, {"include": ["slowfast_r18"]}))
    found = create_optimizer(spec).ask(40)
    assert {suggestion.params["model.beta_inv"] for suggestion in found} == {4, 8}


def test_a_person_s_rule_against_a_model_is_refused_with_both() -> None:
    with pytest.raises(SpecError) as found:
        with_models(_spec({"model": "slowfast_r18"}, DIVIDES, rules=["clip.frames < 8", "model.alpha > 4"]))
    (issue,) = found.value.issues
    assert issue.path == "model_rules[0]"
    assert (
        "then model.alpha divides clip.frames` together with `clip.frames < 8` and `model.alpha > 4`" in issue.message
    )


def test_a_guess_against_a_model_is_refused() -> None:
    guess = {"clip.frames": 12, "model.alpha": 8}
    with pytest.raises(SpecError, match=r"optimizer.enqueue\[0\]: this guess breaks the rule .* divides clip.frames"):
        with_models(_spec({"model": "slowfast_r18"}, DIVIDES, optimizer={"enqueue": [guess]}))


def test_a_model_of_several_that_nothing_can_build_is_refused() -> None:
    both = {"type": "categorical", "choices": ["slowfast_r18", "r2plus1d_18"]}
    alpha = {"type": "ordinal", "choices": [2, 4, 8], "when": {"model": ["slowfast_r18"]}}
    with pytest.raises(SpecError) as found:
        with_models(_spec({"clip.frames": 15}, {"model": both, "model.alpha": alpha}))
    (issue,) = found.value.issues
    assert issue.path == "task.base.clip"
    wanted = "slowfast_r18: alpha must divide frames, and nothing in this study does (clip.frames = 15)"
    assert issue.message == wanted
