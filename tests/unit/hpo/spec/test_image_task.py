"""The kind of task `image`: the video task with clips of one frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpo.cli.spec_check import check_models, search_fragment, with_models
from hpo.errors import SpecError
from hpo.spec import ImageTask, StudySpec, TrainingConfig, dump_spec, parse_spec, stored_spec
from hpo.spec.tasks.image import OF_VIDEOS
from models import list_models, model_info

RAW: dict[str, Any] = {
    "name": "pictures",
    "objectives": [{"metric": "val_top1"}],
    "task": {"kind": "image", "dataset": {"root": "/data/pictures"}},
    "space": {"lr": {"type": "float", "low": 1e-3, "high": 0.1, "log": True}},
    "budget": {"trials": 5},
}


def _spec(**task: Any) -> StudySpec:
    return parse_spec({**RAW, "task": {**RAW["task"], **task}})


def _issues(raw: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(raw, search_fragment)
    return {issue.path: issue.message for issue in caught.value.issues}


def test_it_is_read_and_written_with_its_kind() -> None:
    spec = _spec()
    assert isinstance(spec.task, ImageTask)
    assert dump_spec(spec)["task"]["kind"] == "image"
    assert stored_spec(dump_spec(spec)) == spec
    raw = {**RAW, "task": {"type": "image", "dataset": {"root": "/data/pictures"}}}
    assert parse_spec(raw) == spec


def test_a_trial_trains_clips_of_one_frame_with_the_defaults_of_images() -> None:
    spec = _spec(base={"augment": {"flip": 0.0}})
    assert isinstance(spec.task, ImageTask)
    config = TrainingConfig.from_flat(spec.task.config({"lr": 0.01}, seed=3))
    assert (config.clip.frames, config.clip.stride, config.clip.modality) == (1, 1, "rgb")
    assert (config.model, config.clip.size, config.batch_size) == ("resnet50", 224, 32)
    assert (config.lr, config.augment.flip, config.seed) == (0.01, 0.0, 3)
    assert list(spec.task.config_problems(config.to_flat())) == []
    assert (spec.task.dataset.name, spec.task.dataset.short_side) == ("image_folders", 256)


@pytest.mark.parametrize("key", sorted(OF_VIDEOS))
def test_a_setting_of_videos_is_refused_in_base_and_space(key: str) -> None:
    sentence = f"{key} is a setting of videos, and an image is a single frame; leave it out"
    base = {**RAW, "task": {**RAW["task"], "base": {key: 8}}}
    assert _issues(base) == {f"task.base.{key}": sentence}
    searched = {**RAW, "space": {**RAW["space"], key: {"type": "int", "low": 1, "high": 8}}}
    assert _issues(searched)[f"space.{key}"] == sentence


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [("flow", "dis", "no optical flow"), ("frames_kept", "uniform:4", "one frame"), ("decoder", "pyav", "no")],
)
def test_a_data_set_of_images_has_no_motion(field: str, value: str, says: str) -> None:
    raw = {**RAW, "task": {"kind": "image", "dataset": {"root": "/data/pictures", field: value}}}
    (found,) = _issues(raw).items()
    assert found[0] == f"task.dataset.{field}"
    assert says in found[1]


def test_models_of_videos_are_refused_by_name() -> None:
    (issue,) = check_models(_spec(base={"model": "r3d_18"}))
    assert issue.path == "task.base.model"
    assert issue.message.startswith("r3d_18 is a model of videos; for images there are inception_v1, ")


@pytest.mark.parametrize("name", [name for name in list_models() if model_info(name).of_images])
def test_every_model_of_images_is_a_study_with_its_own_ranges(name: str) -> None:
    raw = {**RAW, "space": {"include": name}, "task": {**RAW["task"], "base": {"clip.size": 299}}}
    spec = with_models(parse_spec(raw, search_fragment))
    assert spec.task.base["model"] == name
    assert not OF_VIDEOS & set(spec.space)


def test_a_clip_too_small_for_a_model_is_refused() -> None:
    with pytest.raises(SpecError, match=r"inception_v3: clip\.size must be at least 75"):
        with_models(_spec(base={"model": "inception_v3", "clip": {"size": 64}}))


def test_paths_are_made_absolute_as_those_of_videos() -> None:
    from hpo.spec.paths import with_absolute_paths

    raw = {**RAW, "task": {"kind": "image", "dataset": {"root": "pictures"}}}
    made = with_absolute_paths(parse_spec(raw), Path("/home/me"))
    assert isinstance(made.task, ImageTask)
    assert made.task.dataset.root == "/home/me/pictures"
