"""Problems in closed form: no data, exact optima."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpo.spec import AnyParameter, CategoricalParameter, FloatParameter, IntParameter, OrdinalParameter
from hpo.trial import Params

from .problem import ACCURACY, LOSS, Problem, Values, row_by_row

HARTMANN6_OPTIMUM: Final = -3.32236801141551
LEVY_NOISE_SD: Final = 2.0
"""About 4 % of the value of the median random configuration."""

_HARTMANN_ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
_HARTMANN_A = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_HARTMANN_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann6() -> Problem:
    """Return Hartmann's function of six variables in [0, 1]: six local minima, one of them global."""
    space = {f"model.x{place}": _real(0.0, 1.0) for place in range(6)}

    def truth(many: Sequence[Params]) -> NDArray[np.float64]:
        points = _matrix(many, space)
        distance = np.einsum("kd,nkd->nk", _HARTMANN_A, (points[:, None, :] - _HARTMANN_P) ** 2)
        return np.asarray(-(np.exp(-distance) @ _HARTMANN_ALPHA)[:, None])

    return Problem(name="hartmann6", space=space, objectives=(LOSS,), truth=truth, optimum=(HARTMANN6_OPTIMUM,))


def levy5() -> Problem:
    """Return Levy's function of five variables in [-10, 10] with normal noise; its minimum is 0 at (1, ..., 1)."""
    space = {f"model.x{place}": _real(-10.0, 10.0) for place in range(5)}

    def truth(many: Sequence[Params]) -> NDArray[np.float64]:
        return levy(_matrix(many, space))[:, None]

    def noise(params: Params, rng: np.random.Generator) -> Values:
        return (float(truth([params])[0, 0] + LEVY_NOISE_SD * rng.standard_normal()),)

    return Problem(name="levy5", space=space, objectives=(LOSS,), truth=truth, noise=noise, optimum=(0.0,))


def levy(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Levy's function of the rows of `points` (n, d)."""
    w = 1 + (points - 1) / 4
    inner = (w[:, :-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:, :-1] + 1) ** 2)
    last = (w[:, -1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[:, -1]) ** 2)
    return np.asarray(np.sin(np.pi * w[:, 0]) ** 2 + inner.sum(axis=1) + last)


def conditional() -> Problem:
    """Return a problem in which each of three branches has its own parameters; the minimum is 0, in branch `b`."""
    branch = CategoricalParameter(type="categorical", choices=["a", "b", "c"])
    gate = CategoricalParameter(type="categorical", choices=[True, False], when={"model.branch": ["b", "c"]})
    space: dict[str, AnyParameter] = {
        "model.branch": branch,
        "model.rate": FloatParameter(type="float", low=1e-5, high=1.0, log=True),
        "model.a": FloatParameter(type="float", low=0.0, high=1.0, when={"model.branch": ["a"]}),
        "model.b": FloatParameter(type="float", low=-5.0, high=5.0, when={"model.branch": ["b"]}),
        "model.depth": IntParameter(type="int", low=1, high=12, when={"model.branch": ["b", "c"]}),
        "model.gate": gate,
        "model.width": OrdinalParameter(type="ordinal", choices=[8, 16, 32, 64, 128], when={"model.gate": [True]}),
        "model.c": FloatParameter(type="float", low=0.1, high=10.0, log=True, when={"model.branch": ["c"]}),
    }
    return Problem(
        name="conditional",
        space=space,
        objectives=(LOSS,),
        truth=row_by_row(_conditional_value),
        optimum=(0.0,),
    )


def _conditional_value(params: Params) -> Values:
    rate = math.log10(float(params["model.rate"]))
    if params["model.branch"] == "a":
        return (0.4 + 0.3 * (rate + 3) ** 2 + 2 * (float(params["model.a"]) - 0.8) ** 2,)
    depth = int(params["model.depth"])
    gated = 0.25 if params["model.gate"] is False else 0.15 * abs(math.log2(float(params["model.width"])) - 5)
    if params["model.branch"] == "b":
        b = float(params["model.b"])
        return (0.3 * (rate + 2) ** 2 + 0.02 * (depth - 9) ** 2 + gated + 0.1 * (b - 1.5) ** 2,)
    c = math.log10(float(params["model.c"]))
    return (0.2 + 0.3 * (rate + 4) ** 2 + 0.02 * (depth - 3) ** 2 + gated + 0.5 * (c + 0.5) ** 2,)


def mixed10() -> Problem:
    """Return a ten-dimensional mixed problem for measuring time: four reals, and two parameters of each other kind."""
    space: dict[str, AnyParameter] = {
        "model.x0": _real(0.0, 1.0),
        "model.x1": _real(-3.0, 3.0),
        "model.x2": FloatParameter(type="float", low=1e-5, high=1.0, log=True),
        "model.x3": FloatParameter(type="float", low=1e-4, high=10.0, log=True),
        "model.n0": IntParameter(type="int", low=1, high=20),
        "model.n1": IntParameter(type="int", low=8, high=512, log=True),
        "model.o0": OrdinalParameter(type="ordinal", choices=[1, 2, 4, 8]),
        "model.o1": OrdinalParameter(type="ordinal", choices=["s", "m", "l", "xl", "xxl"]),
        "model.c0": CategoricalParameter(type="categorical", choices=["relu", "gelu", "swish"]),
        "model.c1": CategoricalParameter(type="categorical", choices=[True, False]),
    }
    return Problem(
        name="mixed10", space=space, objectives=(LOSS,), truth=row_by_row(_mixed_value), noise=_mixed_noise,
        optimum=(0.0,),
    )  # fmt: skip


def _mixed_value(params: Params) -> Values:
    reals = (float(params["model.x0"]) - 0.3) ** 2 + 0.1 * (float(params["model.x1"]) - 1) ** 2
    logs = 0.1 * (math.log10(float(params["model.x2"])) + 2) ** 2 + 0.1 * math.log10(float(params["model.x3"])) ** 2
    whole = 0.01 * (int(params["model.n0"]) - 13) ** 2 + 0.1 * (math.log2(int(params["model.n1"])) - 6) ** 2
    places = 0.1 * abs(int(params["model.o0"]) - 4) + 0.1 * abs(
        ["s", "m", "l", "xl", "xxl"].index(str(params["model.o1"])) - 3
    )
    kinds = {"relu": 0.3, "gelu": 0.0, "swish": 0.1}[str(params["model.c0"])] + (0.2 if params["model.c1"] else 0.0)
    return (reals + logs + whole + places + kinds,)


def _mixed_noise(params: Params, rng: np.random.Generator) -> Values:
    return (_mixed_value(params)[0] + 0.05 * float(rng.standard_normal()),)


def memory_limited() -> Problem:
    """Return a problem over frames x batch x crop^2 in which two thirds of the space do not fit into 24 GiB.

    Accuracy grows with each of the three and with a learning rate that suits the batch, so the optimum is at the limit
    of memory. Memory is activations plus a fixed part (weights, optimizer, CUDA context), so its logarithm is nearly
    but not exactly linear in the logarithms of the shape.
    """
    space: dict[str, AnyParameter] = {
        "clip.frames": IntParameter(type="int", low=8, high=64, log=True),
        "batch_size": IntParameter(type="int", low=4, high=64, log=True),
        "clip.size": OrdinalParameter(type="ordinal", choices=[96, 112, 128, 160, 192, 224, 256]),
        "lr": FloatParameter(type="float", low=1e-4, high=1.0, log=True),
        "dropout": FloatParameter(type="float", low=0.0, high=0.9),
    }
    return Problem(
        name="memory",
        space=space,
        objectives=(ACCURACY,),
        truth=row_by_row(_video_accuracy),
        memory_gib=video_memory_gib,
        capacity_gib=24.0,
    )


def video_memory_gib(params: Params) -> float:
    """Return the peak memory of a training step: 1.5 GiB, plus activations proportional to the pixels of the batch."""
    pixels = float(params["clip.frames"]) * float(params["batch_size"]) * float(params["clip.size"]) ** 2
    return 1.5 + 22.5 * pixels / 4.9e6


def _video_accuracy(params: Params) -> Values:
    frames, batch, size = (float(params[key]) for key in ("clip.frames", "batch_size", "clip.size"))
    right_lr = 0.01 * batch / 16
    lr = math.log10(float(params["lr"]) / right_lr)
    shape = 0.9 - 0.25 * math.exp(-frames / 16) - 0.3 * math.exp(-size / 90) - 0.15 * math.exp(-batch / 12)
    return (shape - 0.06 * lr**2 - 0.15 * (float(params["dropout"]) - 0.5) ** 2,)


def _real(low: float, high: float) -> FloatParameter:
    return FloatParameter(type="float", low=low, high=high)


def _matrix(many: Sequence[Params], space: dict[str, FloatParameter]) -> NDArray[np.float64]:
    return np.array([[params[key] for key in space] for params in many], dtype=np.float64)
