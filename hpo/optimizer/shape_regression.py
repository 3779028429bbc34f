"""A regression of the logarithm of memory or time on the shape of a configuration, which needs few trials.

The target is linear in the logarithms of frames, batch and crop, with priors on the powers. It has a small curvature in
their product (part of the target does not grow with it), an offset for each type of device, and coefficients with prior
mean 0 for the other options of the model. Of a censored observation only a lower bound is known (Tobin, 1958,
"Estimation of Relationships for Limited Dependent Variables").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..arrays import Array, Mask
from ..spec import StudySpec
from ..trial import Params

_SHAPE_SD: Final = 0.3
_CURVATURE_SD: Final = 0.05
_OPTION_SD: Final = 0.5
_MODEL_SD: Final = 1.0
_DEVICE_SD: Final = 0.1
_RESIDUAL_SD: Final = 0.1
_RESIDUAL_WEIGHT: Final = 4.0
"""Prior standard deviation of the residual, and the weight of that prior in observations."""
_NOISE_ROUNDS: Final = 3
_NEWTON_STEPS: Final = 25
_MAX_LOG_EXCESS: Final = math.log(64.0)


class Shape:
    """The features of a configuration: the logarithms of the settings in `powers`, then the options of the model."""

    def __init__(self, spec: StudySpec, powers: Mapping[str, float], *, with_model: bool = False) -> None:
        """Expect the target to grow with these powers of the settings; `with_model` adds an offset per model."""
        self._spec = spec
        self._powers = dict(powers)
        self._model = spec.task.architecture
        self._left_out = set() if with_model or self._model is None else {self._model}

    @property
    def beliefs(self) -> list[tuple[float, float]]:
        """Mean and standard deviation of each coefficient, in the order of the features."""
        options = [
            (0.0, _MODEL_SD if name == self._model else _OPTION_SD)
            for name in self._options
            for _ in _option_values(self._spec, name) or (None,)
        ]
        return [(power, _SHAPE_SD) for power in self._powers.values()] + options

    @property
    def _options(self) -> list[str]:
        names = [name for name in self._spec.space if name not in self._powers and name not in self._left_out]
        prefix = None if self._model is None else f"{self._model}."
        return [name for name in names if _option_values(self._spec, name) or (prefix and name.startswith(prefix))]

    def features(self, params: Params) -> list[float]:
        """Return the features of a configuration, in the order of `beliefs`."""
        config: dict[str, Any] = {**self._spec.task.base, **params}
        found = [math.log(float(config.get(name, 1.0))) for name in self._powers]
        for name in self._options:
            value, choices = config.get(name), _option_values(self._spec, name)
            if choices:
                found += [float(value == choice) for choice in choices]
            else:
                found.append(math.log(value) if isinstance(value, int | float) and value > 0 else 0.0)
        return found


class ShapeRegression:
    """Bayesian linear regression of a logarithm on shapes.

    `targets` are the observations, with estimates in place of the censored ones.
    """

    def __init__(
        self,
        rows: Array,
        targets: Array,
        censored: Mask,
        kinds: Sequence[str],
        beliefs: list[tuple[float, float]],
    ) -> None:
        self._centre = rows.mean(axis=0)
        self._powers = np.array([power for power, _ in beliefs])
        names = sorted(set(kinds))
        self._usual = max(names, key=kinds.count)
        self._names = [name for name in names if name != self._usual]
        design = np.array([self._design(row, kind) for row, kind in zip(rows, kinds, strict=True)])
        mean = np.array([0.0, *self._powers, 0.0, *([0.0] * len(self._names))])
        sds = np.array([10.0, *(sd for _, sd in beliefs), _CURVATURE_SD, *([_DEVICE_SD] * len(self._names))])
        self._level = float(np.mean(targets[~censored]))
        task = _Task(design=design, heights=targets - self._level, censored=censored, mean=mean, precision=sds**-2)
        noise = _RESIDUAL_SD**2
        for _ in range(_NOISE_ROUNDS):
            self._coefficients, covariance = task.solve(noise)
            error = (task.heights - design @ self._coefficients)[~censored]
            noise = (_RESIDUAL_WEIGHT * _RESIDUAL_SD**2 + float(error @ error)) / (_RESIDUAL_WEIGHT + len(error))
        expected = design @ self._coefficients + self._level
        spread = np.sqrt(noise + np.einsum("ij,jk,ik->i", design, covariance, design))
        self.targets = np.where(censored, _above(expected, spread, targets), targets)

    def predict(self, row: Sequence[float]) -> float:
        """Return the expected logarithm, on the usual kind of device."""
        return self._level + float(np.array(self._design(np.array(row), self._usual)) @ self._coefficients)

    def _design(self, row: Array, kind: str) -> list[float]:
        moved = row - self._centre
        product = float(moved @ self._powers)
        return [1.0, *moved.tolist(), product * product, *(float(kind == name) for name in self._names)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """A linear model of `heights` with a normal prior; the censored heights are lower bounds."""

    design: Array
    heights: Array
    censored: Mask
    mean: Array
    precision: Array

    def solve(self, noise: float) -> tuple[Array, Array]:
        """Return the most probable coefficients and their covariance (Laplace) for a residual variance."""
        found = self.mean.copy()
        for _ in range(_NEWTON_STEPS):
            slope, curvature = self._derivatives(found, noise)
            covariance = np.asarray(np.linalg.inv(curvature), dtype=np.float64)
            found = found + covariance @ slope
        return found, covariance

    def _derivatives(self, at: Array, noise: float) -> tuple[Array, Array]:
        """Return the gradient of the log posterior, which is concave, and minus its Hessian."""
        error = self.heights - self.design @ at
        sd = math.sqrt(noise)
        hazard = _hazard(error / sd)
        pull = np.where(self.censored, hazard * sd, error) / noise
        weight = np.where(self.censored, hazard * (hazard - error / sd), 1.0) / noise
        slope = self.design.T @ pull - self.precision * (at - self.mean)
        return slope, (self.design * weight[:, None]).T @ self.design + np.diag(self.precision)


def _above(mean: Array, sd: Array, bound: Array) -> Array:
    """Return the mean of the part of a normal distribution above `bound`."""
    return np.asarray(np.clip(mean + sd * _hazard((bound - mean) / sd), bound, bound + _MAX_LOG_EXCESS))


def _hazard(at: Array) -> Array:
    """Return the density divided by the upper tail probability of the standard normal distribution."""
    from scipy.special import log_ndtr

    return np.asarray(np.exp(-0.5 * at**2 - 0.5 * math.log(2 * math.pi) - log_ndtr(-at)))


def _option_values(spec: StudySpec, name: str) -> Sequence[object]:
    parameter = spec.space[name]
    return parameter.choices if parameter.type == "categorical" else ()
