"""Search fragments: plain data that a study spec takes, every value of which builds a model."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from pydantic import TypeAdapter

import models
from hpo.spec.parameters import AnyParameter
from hpo.spec.tasks.video import adapter_for

PARAMETER: TypeAdapter[Any] = TypeAdapter(AnyParameter)


@pytest.mark.parametrize("name", models.list_models())
def test_fragment_is_what_a_spec_takes(name: str) -> None:
    fragment = models.search_space(name)
    assert json.loads(json.dumps(fragment)) == fragment
    assert {"lr", "weight_decay", "momentum", "dropout"} <= set(fragment)
    for key, spec in fragment.items():
        parameter = PARAMETER.validate_python(spec)
        for parent, values in parameter.when.items():
            assert all(PARAMETER.validate_python(fragment[parent]).contains(value) for value in values)
        if key.startswith("model."):
            continue
        adapter = adapter_for(key)
        for value in parameter.extremes:
            adapter.validate_python(value)


@pytest.mark.parametrize("name", models.list_models())
def test_every_combination_of_a_models_own_can_be_built(name: str) -> None:
    info = models.model_info(name)
    fragment = models.search_space(name)
    chosen = {
        key: PARAMETER.validate_python(spec).extremes
        for key, spec in fragment.items()
        if key.startswith(("model.", "clip."))
    }
    for values in itertools.product(*chosen.values()):
        flat = dict(zip(chosen, values, strict=True))
        hparams = {key.removeprefix("model."): value for key, value in flat.items() if key.startswith("model.")}
        # Some networks are made for clips of one size, by options that the rules hold to those of the clip.
        clip = {"frames": info.clip.frames, "size": info.clip.size}
        clip |= {option: hparams[option] for option in info.clip_options if option in hparams}
        models.check_clip(
            name,
            frames=flat.get("clip.frames", clip["frames"]),
            size=flat.get("clip.size", clip["size"]),
            hparams=hparams,
        )


def test_a_cards_range_replaces_the_common_one() -> None:
    assert models.search_space("r3d_18")["lr"] == {"type": "float", "low": 1e-4, "high": 0.3, "log": True}
    assert models.search_space("swin3d_t")["lr"] == {"type": "float", "low": 1e-5, "high": 3e-3, "log": True}
    assert "model.stochastic_depth" in models.search_space("mvit_v2_s")


def test_slowfast_searches_how_its_pathways_differ() -> None:
    fragment = models.search_space("slowfast_r50_4x16")
    assert fragment["model.alpha"] == {"type": "ordinal", "choices": [4, 8]}
    assert fragment["model.beta_inv"] == {"type": "ordinal", "choices": [4, 8, 16]}
    assert fragment["model.fusion_kernel"] == {"type": "ordinal", "choices": [3, 5, 7]}


def test_choices_of_words_and_flags_have_no_order() -> None:
    assert models.search_space("r2plus1d_18")["model.midplanes"]["type"] == "categorical"
    assert models.search_space("r3d_18")["model.without_t_stride"]["type"] == "categorical"
    assert models.SearchChoice(name="x", values=(1, 2), when=(("y", ("a",)),)).as_spec() == {
        "type": "ordinal",
        "choices": [1, 2],
        "when": {"y": ["a"]},
    }
    assert models.SearchRange(name="x", low=1, high=9, integer=True).as_spec() == {"type": "int", "low": 1, "high": 9}


def test_an_unknown_model_has_no_space() -> None:
    with pytest.raises(models.UnknownModelError, match="did you mean 'r3d_18'"):
        models.search_space("r3d_19")


def test_numbers_are_accepted_in_their_range_alone() -> None:
    info = models.model_info("swin3d_t")
    assert models.resolve_hparams(info, {"stochastic_depth": 0})["stochastic_depth"] == 0.0
    for wrong in (-0.1, 0.95, float("nan"), True, "0.1"):
        with pytest.raises(models.InvalidModelError, match=r"stochastic_depth must be a number from 0 to 0\.9"):
            models.resolve_hparams(info, {"stochastic_depth": wrong})
