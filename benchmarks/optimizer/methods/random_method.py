"""Random search: independent uniform draws."""

from __future__ import annotations

from hpo.optimizer.cube import decode
from hpo.trial import FailureKind, Params, ParamValue

from ..problems import Values
from ..study import generator, spec_of
from .method import Origin, Setting


class RandomMethod:
    """Independent uniform draws, which use no results."""

    def __init__(self, setting: Setting) -> None:
        self._spec = spec_of(setting.problem, trials=1)
        self._rng = generator(setting.problem, setting.seed, "random")
        self._count = 0

    def attach(self, params: Params) -> int:
        """Return the number of the trial."""
        self._count += 1
        return self._count - 1

    def ask(self) -> tuple[int, dict[str, ParamValue]]:
        """Return a new trial and a random configuration."""
        self._count += 1
        return self._count - 1, decode(self._spec, [float(u) for u in self._rng.random(len(self._spec.space))])

    def report(self, trial: int, step: int, value: float) -> bool:
        """Return False: no trial is ever stopped."""
        return False

    def promoted(self) -> None:
        """Return None: no trial is ever paused."""

    def tell(self, trial: int, values: Values, memory_gib: float | None = None) -> None:
        """Do nothing: results are not used."""

    def stop(self, trial: int) -> bool:
        """Return False: results are not used."""
        return False

    def fail(self, trial: int, kind: FailureKind = FailureKind.OOM) -> None:
        """Do nothing: results are not used."""

    def origin(self, trial: int) -> Origin:
        """Return that it is a random draw."""
        return Origin(generator="random", is_model=False)

    def beliefs(self) -> dict[int, tuple[float, float]]:
        """Return nothing: what it believes is not known."""
        return {}

    def best(self) -> None:
        """Return None: the best observed trial."""
