"""Names that others use lead to ours, in every place where a name is not known."""

from __future__ import annotations

import pytest

from hpo.errors import SpecError
from hpo.meanings import _MEANINGS, nearest
from hpo.spec import parse_spec
from hpo.spec.tasks.video import METRICS, field_adapters
from tests.integration.api.service import spec

SETTINGS = [*field_adapters(), *METRICS]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("learning_rate", "lr"),
        ("Learning-Rate", "lr"),
        ("bs", "batch_size"),
        ("wd", "weight_decay"),
        ("n_frames", "clip.frames"),
        ("clip.num_frames", "clip.frames"),
        ("frames", "clip.frames"),
        ("backbone", "model"),
        ("mom", "momentum"),
        ("scheduler", "schedule"),
        ("warmup_epochs", "warmup_fraction"),
        ("accuracy", "val_top1"),
        ("size", "clip.size"),
        ("model.batch_size", "batch_size"),
        ("momentun", "momentum"),
        ("zzzzzz", None),
    ],
)
def test_a_name_is_understood_by_its_meaning_or_its_letters(written: str, meant: str | None) -> None:
    assert nearest(written, SETTINGS) == meant


def test_no_word_means_a_name_that_is_known_as_itself() -> None:
    for name in SETTINGS:
        assert nearest(name, SETTINGS) == name


def test_each_word_is_listed_once_for_a_name() -> None:
    for name, words in _MEANINGS.items():
        assert len(words.split()) == len(set(words.split())), name


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"space": {"learning_rate": {"type": "float", "low": 0.1, "high": 1.0}}}, "'lr'"),
        ({"space": {"lr": {"type": "float", "min": 0.1, "high": 1.0}}}, "'low'"),
        ({"objectives": [{"metric": "accuracy"}]}, "'val_top1'"),
        ({"budget": {"n_trials": 3}}, "'trials'"),
        ({"search_space": {}}, "'space'"),
        ({"optimizer": {"enqueue": [{"learning_rate": 0.1}]}}, "'lr'"),
    ],
)
def test_a_spec_with_the_words_of_others_says_ours(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(spec(**changes))
    assert f"did you mean {expected}?" in str(caught.value)
