"""Space-filling and random configurations, without a model: the start-up, the fallback, and two baselines.

Only numpy and scipy are needed. The sequence is fixed by the seed of the study and the points that are taken are
skipped, so whoever asks with the same records (the optimizer, its successor, or the API while no optimizer runs)
gets the same points.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..spec import StudySpec
from ..trial import ParamValue, Suggestion
from .cube import ParamsKey, decode, key_of
from .history import History

UnitPoints = Callable[[int, int, int], NDArray[np.float64]]
"""(dimensions, seed, exponent) to 2**exponent points of the unit cube; more points begin with the fewer."""


def sobol_points(dimensions: int, seed: int, exponent: int) -> NDArray[np.float64]:
    """Return the first 2**exponent points of a scrambled Sobol sequence (Owen, 1998)."""
    from scipy.stats import qmc  # a second to import, and most callers of this package never need it

    return np.asarray(qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed)).random_base2(exponent))


def random_points(dimensions: int, seed: int, exponent: int) -> NDArray[np.float64]:
    """Return 2**exponent independent uniform points."""
    return np.random.default_rng(seed).random((2**exponent, dimensions))


Decode = Callable[[StudySpec, int, Sequence[float]], dict[str, ParamValue]]
"""(spec, place in the sequence, point) to a configuration."""


def _evenly(spec: StudySpec, place: int, point: Sequence[float]) -> dict[str, ParamValue]:
    return decode(spec, point)


class PointGenerator:
    """Walks a sequence of points, skipping what is taken; repeats configurations once a finite space is used up."""

    def __init__(self, name: str, points: UnitPoints, decode: Decode = _evenly) -> None:
        self.name = name
        self._points = points
        self._decode = decode

    def propose(self, history: History, n: int) -> list[Suggestion]:
        """Return the next `n` points; always `n`, those that repeat a configuration come last."""
        keys = [key_of(record.params) for record in history.records]
        return self.walk(history.spec, keys, n, failed=history.failed)

    def walk(
        self, spec: StudySpec, taken: Collection[ParamsKey], n: int, *, failed: Collection[ParamsKey] = ()
    ) -> list[Suggestion]:
        """As `propose`, from the configurations in `taken` (one entry per trial) alone."""
        counts = Counter(taken)
        seen: dict[ParamsKey, dict[str, ParamValue]] = {}
        found: list[dict[str, ParamValue]] = []
        for params in self._sequence(spec, len(counts) + n):
            if len(found) == n:
                break
            key = key_of(params)
            if key not in seen and key not in counts:
                found.append(params)
            seen.setdefault(key, params)
        counts.update(map(key_of, found))
        while len(found) < n:
            params = min(seen.values(), key=lambda params: (key_of(params) in failed, counts[key_of(params)]))
            counts[key_of(params)] += 1
            found.append(params)
        return [Suggestion(params=params, generator=self.name) for params in found]

    def _sequence(self, spec: StudySpec, wanted: int) -> Iterator[dict[str, ParamValue]]:
        """Yield points in order: enough for `wanted` new ones unless the space is (nearly) used up."""
        exponent = max(wanted - 1, 1).bit_length()
        last = max(exponent + 3, 10)
        start = 0
        while exponent <= last:
            points = self._points(len(spec.space), spec.optimizer.seed, exponent)
            for place, point in enumerate(points[start:], start):
                yield self._decode(spec, place, point.tolist())
            start, exponent = len(points), exponent + 1


def sobol_generator(name: str = "sobol") -> PointGenerator:
    """Make the Sobol generator; `name` says in whose place it stands."""
    return PointGenerator(name, sobol_points)


def random_generator() -> PointGenerator:
    """Make the generator of independent random configurations."""
    return PointGenerator("random", random_points)
