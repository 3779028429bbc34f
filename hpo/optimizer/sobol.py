"""Space-filling and random configurations, without a model: the start-up, the fallback, and two baselines.

Only numpy and scipy are needed. The seed of the study fixes the sequence, and configurations already tried are skipped.
So every caller with the same records (the optimizer, its successor, or the API while no optimizer runs) gets the same
points.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np

from ..arrays import Array
from ..spec import StudySpec
from ..spec.configurations import configurations, count_configurations
from ..spec.rules import examples
from ..trial import ParamValue, Suggestion
from .cube import ParamsKey, decode, key_of
from .generator import GeneratorError
from .history import History
from .keeping import point_allowed

UnitPoints = Callable[[int, int, int], Array]
"""Maps (dimensions, seed, exponent) to 2**exponent points of the unit cube; a larger exponent only adds points."""


def sobol_points(dimensions: int, seed: int, exponent: int) -> Array:
    """Return the first 2**exponent points of a scrambled Sobol sequence (Owen, 1998)."""
    from scipy.stats import qmc  # importing takes a second, and most callers of this package never need it

    return np.asarray(qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed)).random_base2(exponent))


def random_points(dimensions: int, seed: int, exponent: int) -> Array:
    """Return 2**exponent independent uniform points."""
    return np.random.default_rng(seed).random((2**exponent, dimensions))


Decode = Callable[[StudySpec, int, Sequence[float]], dict[str, ParamValue]]
"""Maps (spec, index in the sequence, point) to a configuration."""


def _uniform(spec: StudySpec, place: int, point: Sequence[float]) -> dict[str, ParamValue]:
    return decode(spec, point)


class PointGenerator:
    """Proposes the points of a sequence in order, without those already tried and those that break a rule.

    Where too few of them keep the rules, the others follow, with allowed values for what the rules mention. Of a finite
    space those follow that the sequence does not reach, and nothing is repeated. Where conditions and rules connect too
    many values to count them, configurations are repeated once no new one is found.
    """

    def __init__(self, name: str, points: UnitPoints, decode: Decode = _uniform) -> None:
        self.name = name
        self._points = points
        self._decode = decode

    def propose(self, history: History, n: int) -> list[Suggestion]:
        """Return the next `n` points; fewer once every configuration of a finite space was tried.

        Raises:
            GeneratorError: no configuration was found that keeps the rules.
        """
        keys = [key_of(record.params) for record in history.records]
        return self.walk(history.spec, keys, n, failed=history.failed)

    def walk(
        self, spec: StudySpec, taken: Collection[ParamsKey], n: int, *, failed: Collection[ParamsKey] = ()
    ) -> list[Suggestion]:
        """Return the same as `propose`, given only the configurations tried, `taken` (one entry per trial)."""
        counts = Counter(taken)
        seen: dict[ParamsKey, dict[str, ParamValue]] = {}
        found: list[dict[str, ParamValue]] = []
        wanted = len(counts) + n
        points = itertools.chain(self._kept(spec, wanted), self._moved(spec, wanted), configurations(spec))
        for params in points:
            if len(found) == n:
                break
            key = key_of(params)
            if key not in seen and key not in counts:
                found.append(params)
            seen.setdefault(key, params)
        if not seen:
            raise GeneratorError("no configuration was found that keeps all rules of the study")
        counts.update(map(key_of, found))
        while len(found) < n and count_configurations(spec) is None:
            params = min(seen.values(), key=lambda params: (key_of(params) in failed, counts[key_of(params)]))
            counts[key_of(params)] += 1
            found.append(params)
        return [Suggestion(params=params, generator=self.name) for params in found]

    def _kept(self, spec: StudySpec, wanted: int) -> Iterator[dict[str, ParamValue]]:
        """Yield the configurations of the sequence that keep the rules."""
        book = spec.rulebook
        return (params for _, _, params in self._sequence(spec, wanted) if book.allows(params))

    def _moved(self, spec: StudySpec, wanted: int) -> Iterator[dict[str, ParamValue]]:
        """Yield those that do not, with allowed values in the place of what the rules mention."""
        book = spec.rulebook
        if not book.rules or not examples(book):
            return
        for place, point, params in self._sequence(spec, wanted):
            if not book.allows(params) and (moved := point_allowed(spec, place, point)) is not None:
                yield moved

    def _sequence(self, spec: StudySpec, wanted: int) -> Iterator[tuple[int, Sequence[float], dict[str, ParamValue]]]:
        """Yield index, point and configuration: enough for `wanted` different ones unless the space has too few."""
        exponent = max(wanted - 1, 1).bit_length()
        last = max(exponent + 3, 10)
        start = 0
        while exponent <= last:
            points = self._points(len(spec.space), spec.optimizer.seed, exponent)
            for place, point in enumerate(points[start:].tolist(), start):
                yield place, point, self._decode(spec, place, point)
            start, exponent = len(points), exponent + 1


def sobol_generator(name: str = "sobol") -> PointGenerator:
    """Return the Sobol generator; suggestions carry `name` as their origin."""
    return PointGenerator(name, sobol_points)


def random_generator() -> PointGenerator:
    """Return the generator of independent random configurations."""
    return PointGenerator("random", random_points)
