"""What a table of real trainings consists of: videos, the settings that all trainings share, and a grid of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.spec import AnyParameter, VideoTask
from hpo.trial import ParamValue

from ..problems.trained import Levels, grid, levels_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One table."""

    name: str
    what: str
    """One sentence for its header."""
    videos: Callable[[Path], Path]
    """Returns the root of the data set, after making it below a folder where it is generated."""
    dataset: Mapping[str, Any]
    """The fields of the data set, without its root."""
    base: Mapping[str, Any]
    """The settings that all trainings share, flat."""
    space: Mapping[str, AnyParameter]
    parts: Mapping[str, int]
    """Into how many parts each float of the space is cut."""
    epochs: int
    final_views: int
    """Clips of each video of the larger set; each clip counts by itself."""

    @property
    def levels(self) -> Levels:
        """The values of each parameter that are trained."""
        return {key: levels_of(parameter, self.parts.get(key)) for key, parameter in self.space.items()}

    def configurations(self) -> Iterator[dict[str, ParamValue]]:
        """Yield every configuration of the grid."""
        return grid(self.space, self.levels)

    def task(self, root: Path | str) -> VideoTask:
        """Return the task as a study spec would have it."""
        fields = {"dataset": {**self.dataset, "root": str(root)}, "epochs": self.epochs, "base": dict(self.base)}
        return VideoTask.model_validate(fields)

    def described(self) -> dict[str, Any]:
        """Return what of the definition goes into the header, as JSON has it."""
        return {
            "what": self.what,
            "space": {
                key: parameter.model_dump(mode="json", exclude_defaults=True)
                for key, parameter in self.space.items()
            },
            "levels": {key: list(values) for key, values in self.levels.items()},
            "base": dict(self.base),
            "dataset": dict(self.dataset),
            "epochs": self.epochs,
        }  # fmt: skip
