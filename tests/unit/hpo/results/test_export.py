"""The export document: complete, exact over a round trip, and precise about what is wrong with a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hpo.errors import ConflictError, SpecError
from hpo.results.export import Export, build_export, dump_export, load_export
from hpo.spec import StudySpec, parse_spec
from hpo.trial import Params, TrialRecord, TrialState

from ..spec.specs import VALID, with_change

SPEC = parse_spec(VALID)
PARAMS: Params = {"lr": 0.012345678901234567, "weight_decay": 1e-05, "model": "slowfast_r50_4x16", "model.alpha": 8}
TRIAL = TrialRecord(
    id=11,
    number=7,
    state=TrialState.COMPLETED,
    params=PARAMS,
    metrics={"val_top1": 0.1 + 0.2, "val_loss": 1.5, "epoch_seconds": 12.0},
    epochs_done=40,
)


def _build(trial: TrialRecord = TRIAL, spec: StudySpec = SPEC) -> Export:
    return build_export(
        study="slowfast-ucf101",
        spec=spec,
        trial=trial,
        dataset_version="sha256:abc",
        environment={"torch": "2.15.0", "threads": 1},
        checkpoint="/c/7/last.pt",
    )


def test_it_holds_everything_that_a_run_needs() -> None:
    export = _build()
    assert export.objectives == {"val_top1": 0.1 + 0.2}
    assert export.config["batch_size"] == 32, "from base"
    assert export.config["clip.frames"] == 32
    assert export.config["momentum"] == 0.9, "defaults are written out"
    assert export.config["model.alpha"] == 8
    assert export.seed == export.config["seed"] == SPEC.trial_config(PARAMS, number=7)["seed"]
    assert export.config == SPEC.trial_config(PARAMS, number=7)
    assert export.task == SPEC.task


def test_the_export_of_a_replicate_has_the_seed_that_it_was_trained_with() -> None:
    fixed = parse_spec(with_change("task/base/seed", 11))
    first = _build(spec=fixed)
    again = _build(replace(TRIAL, number=9, replicate_of=7), fixed)
    assert again.seed == again.config["seed"] == fixed.trial_config(PARAMS, number=9, is_replicate=True)["seed"] != 11
    assert {**again.config, "seed": 11} == first.config


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_round_trip_keeps_every_digit(tmp_path: Path, form: Any) -> None:
    file = tmp_path / f"best.{form}"
    file.write_text(dump_export(_build(), form=form))
    assert load_export(file) == _build()


@given(lr=st.floats(1e-4, 0.3), decay=st.floats(1e-6, 5e-3))
def test_floats_survive_yaml(lr: float, decay: float) -> None:
    export = _build(replace(TRIAL, params={**PARAMS, "lr": lr, "weight_decay": decay}))
    assert Export.model_validate(yaml.safe_load(dump_export(export, form="yaml"))) == export


def test_the_yaml_begins_with_its_result_and_names_the_command_that_trains_it() -> None:
    text = dump_export(_build(), form="yaml")
    assert text.startswith("# Trial 7 of study slowfast-ucf101: val_top1 = 0.3.\n")
    assert "hpo train" in text


@pytest.mark.parametrize("state", [TrialState.RUNNING, TrialState.FAILED, TrialState.SUGGESTED, TrialState.WITHDRAWN])
def test_a_trial_without_a_result_is_refused(state: TrialState) -> None:
    with pytest.raises(ConflictError, match=f"trial 7 of study 'slowfast-ucf101' is {state}"):
        _build(replace(TRIAL, state=state, metrics=None))


def test_a_cancelled_trial_that_failed_exports_what_it_measured_last() -> None:
    curve = {1: {"val_top1": 0.25}, 2: {"val_top1": 0.5}}
    export = _build(replace(TRIAL, state=TrialState.STOPPED, metrics=None, curve=curve, epochs_done=2))
    assert (export.objectives, export.metrics) == ({"val_top1": 0.5}, {"val_top1": 0.5})


def test_an_early_stopped_trial_says_so() -> None:
    export = _build(replace(TRIAL, state=TrialState.STOPPED, epochs_done=5))
    assert (export.state, export.epochs_done) == ("stopped", 5)


@pytest.mark.parametrize(
    ("path", "value", "where", "words"),
    [
        (("config", "lr"), -1, "config.lr", "greater than 0"),
        (("config", "lr"), "fast", "config.lr", "'fast'"),
        (("config", "learning_rate"), 0.1, "config.learning_rate", "no such field"),
        (("config", "clip.frames"), 0, "config.clip.frames", "greater than or equal to 1"),
        (("config", "model.alpha"), [1], "config.model.alpha", "valid"),
        (("task", "epochs"), 0, "task.epochs", "greater than or equal to 1"),
        (("metrics", "val_top1"), float("nan"), "metrics.val_top1", "finite"),
        (("seed",), 3, "", "they must agree"),
        (("state",), "failed", "state", "'failed'"),
        (("tirals",), 1, "tirals", "no such field"),
        (("format_version",), 2, "format_version", "this version reads 1"),
    ],
)
def test_a_wrong_file_names_the_field(
    tmp_path: Path, path: tuple[str, ...], value: object, where: str, words: str
) -> None:
    document = _build().model_dump(mode="json")
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    file = tmp_path / "best.yaml"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(SpecError) as wrong:
        load_export(file)
    found = {issue.path: issue.message for issue in wrong.value.issues}
    assert any(key.startswith(where) and words in message for key, message in found.items()), found


def _issues_with(tmp_path: Path, section: str, **changes: object) -> dict[str, str]:
    document = _build().model_dump(mode="json")
    document[section] |= changes
    file = tmp_path / "best.json"
    file.write_text(json.dumps(document))
    with pytest.raises(SpecError) as wrong:
        load_export(file)
    return {issue.path: issue.message for issue in wrong.value.issues}


def test_a_wrong_value_is_reported_once(tmp_path: Path) -> None:
    assert _issues_with(tmp_path, "config", lr=0) == {"config.lr": "must be greater than 0, but it is 0"}


def test_an_unknown_kind_of_task_is_a_sentence(tmp_path: Path) -> None:
    found = _issues_with(tmp_path, "task", kind="audio")
    assert found == {"task.kind": "'audio' is not known here; use one of: 'video', 'image', 'custom'"}


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    document = _build().model_dump(mode="json")
    del document["task"]
    (tmp_path / "best.json").write_text(json.dumps(document))
    with pytest.raises(SpecError, match="task: this field is required"):
        load_export(tmp_path / "best.json")


@pytest.mark.parametrize("content", [b"", b"just text", b"[1]", b"a: [", b"\xff\xfe", b"name: a-study\nspace: {}"])
def test_the_error_for_a_file_that_is_not_an_export_names_the_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "best.yaml"
    file.write_bytes(content)
    with pytest.raises(SpecError, match=r"best\.yaml: is not"):
        load_export(file)
    with pytest.raises(SpecError, match=r"none\.yaml: cannot be read"):
        load_export(tmp_path / "none.yaml")


def test_it_names_the_bytes_that_the_training_started_from(tmp_path: Path) -> None:
    none = {"count": 0, "first": []}
    started = {
        "source": "k400.pth",
        "stream": None,
        "sha256": "1" * 64,
        "layout": "PySlowFast",
        "network": "",
        "loaded": 318,
        "adapted": none,
        "reset": {"count": 2, "first": ["head.bias", "head.weight"]},
        "kept": none,
        "dropped": none,
        "notes": ["a note"],
    }
    export = _build(replace(TRIAL, weights=(started,)))
    (tmp_path / "best.yaml").write_text(dump_export(export, form="yaml"))
    (used,) = load_export(tmp_path / "best.yaml").weights
    assert (used.source, used.sha256, used.layout) == ("k400.pth", "1" * 64, "PySlowFast")
    assert (used.loaded, used.adapted, used.reset, used.kept, used.dropped) == (318, 0, 2, 0, 0)
    assert "weights" not in yaml.safe_load(dump_export(_build(), form="yaml")), "earlier releases read the others"


def test_only_the_export_of_a_refit_says_that_it_is_one(tmp_path: Path) -> None:
    assert "refit" not in yaml.safe_load(dump_export(_build(), form="yaml"))
    (tmp_path / "best.yaml").write_text(dump_export(_build().model_copy(update={"refit": True}), form="yaml"))
    assert load_export(tmp_path / "best.yaml").refit
