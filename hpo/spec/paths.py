"""Paths in a study spec: workers read them, each in a folder and a home of its own, so they have to be absolute."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..errors import SpecIssue
from .study import StudySpec
from .tasks.video import VideoTask

_PATHS: Final = ("root", "flow_weights")
"""Fields of a data set."""
_ADDRESS: Final = "://"
"""In the address of a data set, which is the same from everywhere."""


def relative_paths(spec: StudySpec) -> list[SpecIssue]:
    """Return an issue for each path that would be another one in each worker."""
    return [
        SpecIssue(
            path=f"task.dataset.{name}",
            message=f"{path!r} is not an absolute path, so each worker would look for it in another folder; give the "
            "whole path, from /",
        )
        for name, path in _paths(spec).items()
        if not (Path(path).is_absolute() or _ADDRESS in path)
    ]


def with_absolute_paths(spec: StudySpec, folder: Path) -> StudySpec:
    """Return the spec with its paths as a person in `folder` means them: `~` is that person's home."""
    if not isinstance(spec.task, VideoTask):
        return spec
    local = {name: path for name, path in _paths(spec).items() if _ADDRESS not in path}
    absolute = {name: str(folder / Path(path).expanduser()) for name, path in local.items()}
    dataset = spec.task.dataset.model_copy(update=absolute)
    return spec.model_copy(update={"task": spec.task.model_copy(update={"dataset": dataset})})


def _paths(spec: StudySpec) -> dict[str, str]:
    """Return the paths of a spec by the names of their fields."""
    if not isinstance(spec.task, VideoTask):
        return {}
    found = {name: getattr(spec.task.dataset, name) for name in _PATHS}
    return {name: str(path) for name, path in found.items() if path is not None}
