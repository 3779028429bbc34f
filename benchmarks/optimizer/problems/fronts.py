"""Problems with two objectives in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpo.spec import AnyParameter, CategoricalParameter, FloatParameter, IntParameter
from hpo.trial import Params

from .problem import LOSS, SIZE, Problem, Values, row_by_row

BRANIN_CURRIN_HYPERVOLUME: Final = 59.36011874867746
"""Hypervolume of the whole front from the corner (18, 6), as stated by BoTorch's test function."""


def branin_currin() -> Problem:
    """Return Branin's and Currin's functions of two variables (Belakaria et al., 2019)."""
    space = {f"model.x{place}": FloatParameter(type="float", low=0.0, high=1.0) for place in range(2)}

    def truth(many: Sequence[Params]) -> NDArray[np.float64]:
        points = np.array([[params[key] for key in space] for params in many], dtype=np.float64)
        return np.column_stack([_branin(points), _currin(points)])

    return Problem(
        name="branin_currin",
        space=space,
        objectives=(LOSS, SIZE),
        truth=truth,
        reference_point=(18.0, 6.0),
        hypervolume=BRANIN_CURRIN_HYPERVOLUME,
    )


def _branin(points: NDArray[np.float64]) -> NDArray[np.float64]:
    u, v = 15 * points[:, 0] - 5, 15 * points[:, 1]
    square = (v - 5.1 / (4 * math.pi**2) * u**2 + 5 / math.pi * u - 6) ** 2
    return np.asarray(square + 10 * (1 - 1 / (8 * math.pi)) * np.cos(u) + 10)


def _currin(points: NDArray[np.float64]) -> NDArray[np.float64]:
    u, v = points[:, 0], points[:, 1]
    with np.errstate(divide="ignore"):
        factor = 1 - np.exp(-1 / (2 * v))
    return np.asarray(factor * (2300 * u**3 + 1900 * u**2 + 2092 * u + 60) / (100 * u**3 + 500 * u**2 + 4 * u + 20))


def dtlz2() -> Problem:
    """Return DTLZ2 (Deb et al., 2005) of six variables: the front is a quarter of a circle."""
    space = {f"model.x{place}": FloatParameter(type="float", low=0.0, high=1.0) for place in range(6)}

    def truth(many: Sequence[Params]) -> NDArray[np.float64]:
        points = np.array([[params[key] for key in space] for params in many], dtype=np.float64)
        radius = 1 + np.sum((points[:, 1:] - 0.5) ** 2, axis=1)
        angle = points[:, 0] * np.pi / 2
        return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])

    return Problem(
        name="dtlz2",
        space=space,
        objectives=(LOSS, SIZE),
        truth=truth,
        reference_point=(1.1, 1.1),
        hypervolume=1.1**2 - math.pi / 4,
    )


def network_size() -> Problem:
    """Return a noisy mixed problem with a condition: the loss of a network against its size.

    Each kind has its own best width at every depth, and the front contains several kinds.
    """
    space: dict[str, AnyParameter] = {
        "model.kind": CategoricalParameter(type="categorical", choices=["narrow", "wide", "gated"]),
        "model.depth": IntParameter(type="int", low=2, high=34),
        "model.width": IntParameter(type="int", low=8, high=512, log=True),
        "model.rate": FloatParameter(type="float", low=1e-5, high=1.0, log=True),
        "model.gate": FloatParameter(type="float", low=0.0, high=1.0, when={"model.kind": ["gated"]}),
    }

    def noise(params: Params, rng: np.random.Generator) -> Values:
        loss, size = _network(params)
        return (loss + 0.01 * float(rng.standard_normal()), size)

    return Problem(
        name="network_size",
        space=space,
        objectives=(LOSS, SIZE),
        truth=row_by_row(_network),
        noise=noise,
        reference_point=(2.0, 3.0),
    )


def _network(params: Params) -> Values:
    """Return the loss and the decimal logarithm of the size in thousands of parameters."""
    depth, width = int(params["model.depth"]), int(params["model.width"])
    factor = {"narrow": 1.0, "wide": 1.6, "gated": 1.2}[str(params["model.kind"])]
    size = math.log10(depth * (width * factor) ** 2 / 1000 + 1)
    capacity = math.log2(depth) / 5 + factor * math.log2(width) / 9
    rate = (math.log10(float(params["model.rate"])) + 2 + depth / 34) ** 2
    gate = 0.5 * (float(params["model.gate"]) - 0.7) ** 2 - 0.1 if "model.gate" in params else 0.0
    return (0.3 + 1.5 * math.exp(-1.2 * capacity) + 0.1 * rate + gate, size)
