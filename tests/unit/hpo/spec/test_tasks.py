"""The kinds of task: `video` where none is named, and one more that the rest of `hpo` serves without knowing it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from hpo.errors import SpecError
from hpo.optimizer import create_optimizer
from hpo.optimizer.memory import Device, Fleet, MemoryModel
from hpo.protocol import Lease
from hpo.results.export import Export, build_export, dump_export, load_export
from hpo.results.ranking import scores
from hpo.results.warm_start import taken_over
from hpo.spec import METRICS, StudySpec, VideoTask, dump_spec, parse_spec, stored_spec
from hpo.spec.tasks.video import DatasetConfig
from hpo.trial import Decision, ParamValue, TrialRecord, TrialState

from ..records import record_of, spec_with
from .counting import RAW, CountingTask, counting_registered
from .specs import VALID, with_change


@pytest.fixture
def _counting() -> Iterator[None]:
    with counting_registered():
        yield


counting = pytest.mark.usefixtures("_counting")


def _changed(**sections: Any) -> dict[str, Any]:
    return {**RAW, **sections}


def _issues(raw: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(raw)
    return {issue.path: issue.message for issue in caught.value.issues}


def test_a_task_is_video_unless_it_says_otherwise() -> None:
    spec = parse_spec(VALID)
    assert isinstance(spec.task, VideoTask)
    assert parse_spec(with_change("task/kind", "video")) == spec


def test_the_kind_of_a_video_task_is_not_written() -> None:
    written = dump_spec(parse_spec(with_change("task/kind", "video")))["task"]
    assert list(written) == ["dataset", "epochs", "timeout_minutes", "base"]


@pytest.mark.parametrize("kind", ["vidoe", None, ["video"]])
def test_an_unknown_kind_is_named_with_those_that_there_are(kind: object) -> None:
    issues = _issues(with_change("task/kind", kind))
    assert issues == {"task.kind": f"{kind!r} is not known here; use one of: 'video', 'image', 'custom'"}


@pytest.mark.parametrize(
    ("change", "value", "path", "words"),
    [
        ("task", "/data", "task", "must be a mapping, such as {dataset: /data}, but it is '/data'"),
        ("task", None, "task", "must be a mapping of fields"),
        ("task/base", 3, "task.base", "must be a mapping of fields, but it is 3"),
        ("task/epcohs", 3, "task.epcohs", "did you mean 'epochs'"),
        ("task/dataset/rot", "x", "task.dataset.rot", "did you mean 'root'"),
        (
            "constraints",
            ["val_top9 >= 0.5"],
            "constraints[0].metric",
            "unknown metric 'val_top9'; did you mean 'val_top5'? workers report",
        ),
    ],
)
def test_an_error_within_a_task_has_the_path_that_was_written(
    change: str, value: object, path: str, words: str
) -> None:
    (found,) = _issues(with_change(change, value)).items()
    assert found[0] == path
    assert words in found[1]


@pytest.mark.parametrize("metric", METRICS)
def test_an_objective_without_a_direction_has_that_of_its_metric(metric: str) -> None:
    spec = parse_spec({**VALID, "objectives": [{"metric": metric}]})
    assert spec.objectives[0].direction == METRICS[metric].direction
    assert dump_spec(spec)["objectives"][0]["direction"] == METRICS[metric].direction
    other = "minimize" if METRICS[metric].direction == "maximize" else "maximize"
    against = parse_spec({**VALID, "objectives": [{"metric": metric, "direction": other}]})
    assert against.objectives[0].direction == other


def test_what_takes_time_is_measured_where_a_study_names_it() -> None:
    assert parse_spec(VALID).measures == []
    both = [{"metric": "val_top1"}, {"metric": "batch_latency_ms"}]
    spec = parse_spec({**VALID, "objectives": both, "constraints": ["latency_ms <= 40", "epoch_seconds <= 40"]})
    assert spec.measures == ["batch_latency_ms", "latency_ms"]
    assert spec.objectives[1].direction == "minimize"


@counting
def test_another_kind_is_read_and_written() -> None:
    spec = parse_spec(RAW)
    assert isinstance(spec.task, CountingTask)
    assert dump_spec(spec)["task"]["kind"] == "counting"
    assert stored_spec(dump_spec(spec)) == spec
    assert spec.objectives[0].direction == "minimize", "as the spec itself says of its metric"
    assert isinstance(parse_spec(VALID).task, VideoTask), "beside it nothing changes"


@counting
@pytest.mark.parametrize(
    ("section", "value", "path", "words"),
    [
        ("objectives", [{"metric": "val_top1"}], "objectives[0].metric", "workers report: misses, hits"),
        ("constraints", ["val_top1 >= 0.5"], "constraints[0].metric", "workers report: misses, hits"),
        ("constraints", ["hits >= 25"], "constraints[0]", "a share from 0 to 1"),
        ("budget", {"trials": 1, "target": {"val_top1": 1}}, "budget.target.val_top1", "workers report: misses, hits"),
        ("space", {"Speed": {"type": "int", "low": 1, "high": 2}}, "space.Speed", "not in small letters"),
        ("space", {"speed": {"type": "int", "low": 1, "high": 13}}, "space.speed.high", "speed is never 13"),
        ("task", {**RAW["task"], "base": {"a": {"b": 13}}}, "task.base.a.b", "a.b is never 13"),
        ("task", {**RAW["task"], "measure": {}}, "task.measure", "did you mean 'measures'"),
        ("task", {**RAW["task"], "measures": {"misses": "up"}}, "task.measures.misses", "'maximize' or 'minimize'"),
    ],
)
def test_its_own_metrics_and_settings_are_what_counts(section: str, value: object, path: str, words: str) -> None:
    assert words in _issues(_changed(**{section: value}))[path]


PARAMS: dict[str, ParamValue] = {"speed": 1.25, "clip.frames": "few"}


@counting
def test_a_lease_carries_its_configuration() -> None:
    spec = parse_spec(RAW)
    config = spec.trial_config(PARAMS, number=4)
    assert config == {"seed": config["seed"], "patience": 1, "tool.kind": "abacus", **PARAMS}
    assert config["seed"] != spec.trial_config(PARAMS, number=5)["seed"]
    lease = Lease(
        study=spec.name,
        study_id=1,
        trial_id=1,
        number=4,
        attempt=1,
        lease_id=UUID(int=1),
        params=PARAMS,
        config=config,
        task=spec.task,
        checkpoint=None,
        epochs_done=0,
        lease_seconds=60,
        heartbeat_seconds=15,
    )
    assert Lease.model_validate_json(lease.model_dump_json()) == lease


@counting
def test_an_export_of_it_is_read_again(tmp_path: Path) -> None:
    spec = parse_spec(RAW)
    trial = _trial(4, 3.0, epochs_done=3)
    export = build_export(
        study=spec.name, spec=spec, trial=trial, dataset_version=None, environment={}, checkpoint=None
    )
    (tmp_path / "best.yaml").write_text(dump_export(export, form="yaml"))
    assert load_export(tmp_path / "best.yaml") == export
    with pytest.raises(ValueError, match="speed is never 13"):
        Export.model_validate({**export.model_dump(), "config": {**export.config, "speed": 13}})


def _trial(number: int, misses: float, **fields: Any) -> TrialRecord:
    params = {"speed": 0.5 + number / 10, "clip.frames": ("few", "many")[number % 2]}
    metrics = {"misses": misses, "hits": 0.5}
    given = {"params": params, "metrics": metrics, "gpu_seconds": 10.0 * (number + 1), "epochs_done": 3, **fields}
    return record_of(number, TrialState.COMPLETED, **given)


@counting
def test_the_optimizer_learns_it_and_stops_its_trials() -> None:
    spec = parse_spec(_changed(optimizer={"name": "ax", "startup_trials": 3}))
    optimizer = create_optimizer(spec, fleet=Fleet(largest_bytes=2**33))
    for number in range(6):
        (suggestion,) = optimizer.ask()
        spec.check_params(suggestion.params)
        optimizer.register(number, suggestion)
        for step in range(1, 4):
            optimizer.report(number, step, {"misses": 9 - step + number / 10, "hits": 0.5})
        optimizer.tell(number, {"misses": 6 + number / 10, "hits": 0.5})
    assert optimizer.uses_model
    optimizer.register(6, optimizer.ask()[0])
    assert optimizer.report(6, 1, {"misses": 50.0, "hits": 0.5}) is Decision.STOP
    assert optimizer.report(6, 2, {"misses": 0.0, "hits": 0.5}) is Decision.CONTINUE


@counting
def test_its_memory_is_learnt_from_settings_that_do_not_describe_a_clip() -> None:
    gib = 2**30
    fleet = Fleet(devices={"w": Device(kind="gpu", memory_bytes=16 * gib)}, largest_bytes=16 * gib)
    records = [
        _trial(number, 1.0, worker="w", peak_memory_bytes=gib * (1 if number % 2 == 0 else 4)) for number in range(8)
    ]
    memory = MemoryModel(parse_spec(RAW), records, fleet)
    little, much = (memory.predict_gib({"speed": 1.0, "clip.frames": word}) for word in ("few", "many"))
    assert little is not None
    assert much is not None
    assert little == pytest.approx(1, rel=0.3)
    assert much == pytest.approx(4, rel=0.3)


@counting
def test_its_trials_are_ranked_and_taken_over() -> None:
    spec = parse_spec(RAW)
    records = [_trial(number, misses) for number, misses in enumerate([3.0, 1.0, 2.0])]
    standing = scores(spec, {record.id: record.metrics or {} for record in records})
    assert sorted(standing, key=lambda id: -standing[id]) == [1, 2, 0]
    later = parse_spec(_changed(space={**RAW["space"], "patience": {"type": "int", "low": 1, "high": 9}}))
    assert [trial.params for trial in taken_over(later, spec, records)] == [
        {**record.params, "patience": 1} for record in records
    ]


@counting
def test_nothing_is_taken_over_from_another_kind() -> None:
    space = {"speed": RAW["space"]["speed"]}
    spec: StudySpec = parse_spec(_changed(space=space, objectives=[{"metric": "misses"}], constraints=[]))
    video = spec_with(objectives=[{"metric": "val_loss"}])
    records = [record_of(1, TrialState.COMPLETED, params={"speed": 1.0}, metrics={"misses": 1.0})]
    assert len(taken_over(spec, spec, records)) == 1
    assert taken_over(spec, video, records) == []


def test_a_trial_draws_its_groups_from_its_seed_where_the_study_says_so() -> None:
    for said, drawn in (("trial", 11), (7, 7), (None, None)):
        dataset = DatasetConfig.model_validate({"root": "/videos", "split_seed": said})
        assert dataset.of_trial(11).split_seed == drawn
    with pytest.raises(ValidationError, match="every trial has the same official validation list"):
        DatasetConfig.model_validate({"root": "/videos", "split_seed": "trial", "validation": "official"})
