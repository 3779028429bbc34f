"""A study like that of `hpo demo` in 0.2.0, in closed form: its space, and curves of 12 epochs that saturate.

The optimum of the learning rate is inside its range, a rate far above it stays at chance, and every other parameter
matters a little. The numbers are chosen so that chance is 0.25, the best configuration reaches about 0.72, and a third
of the space is worth little, as in trainings of small models on motion alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from hpo.spec import AnyParameter
from hpo.trial import FailureKind, Params

from .problem import ACCURACY, Problem, row_by_row
from .training import Training

SPACE: Final = TypeAdapter(dict[str, AnyParameter]).validate_python(
    {
        "model": {"type": "categorical", "choices": ["slowfast_r18", "r2plus1d_18"]},
        "lr": {"type": "float", "low": 5e-3, "high": 0.2, "log": True},
        "weight_decay": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True},
        "dropout": {"type": "float", "low": 0.0, "high": 0.5},
        "clip.stride": {"type": "int", "low": 1, "high": 3},
        "model.width": {"type": "ordinal", "choices": [8, 16], "when": {"model": ["slowfast_r18"]}},
        "model.alpha": {"type": "ordinal", "choices": [4, 8], "when": {"model": ["slowfast_r18"]}},
        "model.beta_inv": {"type": "ordinal", "choices": [2, 4], "when": {"model": ["slowfast_r18"]}},
    }
)
EPOCHS: Final = 12
CHANCE: Final = 0.25
NOISES: Final = (0.0, 0.01, 0.02, 0.04)
"""Standard deviations of the accuracy of one epoch."""
_AMPLITUDE: Final = 0.47
_SHAPE: Final = 1.5
_DURATION_SPREAD: Final = 0.05
_EPOCH_SECONDS: Final = {"r2plus1d_18": 9.0, 8: 6.0, 16: 12.0}
"""Seconds of an epoch of R(2+1)D, and of SlowFast by its width."""
FAILING_RATE: Final = 0.0585
"""Learning rates above this are a third of the range, on its logarithm."""
_FAILING_EPOCH: Final = 2


def demo(name: str, noise: float, failing: FailureKind | None = None) -> Problem:
    """Return the problem with normal noise of the sd `noise` in every epoch.

    With `failing`, trainings in a third of the space (learning rates above 0.0585) fail in this way in their second
    epoch. Their truth is chance.
    """

    def truth(params: Params) -> tuple[float]:
        return (CHANCE if _fails(params, failing) else float(demo_curve(params)[-1]),)

    def training(params: Params, rng: np.random.Generator) -> Training:
        clean = demo_curve(params)
        shown = np.clip(clean + noise * rng.standard_normal(EPOCHS), 0.0, 1.0)
        seconds = _epoch_seconds(params) * np.exp(_DURATION_SPREAD * rng.standard_normal(EPOCHS))
        if _fails(params, failing):
            return Training(
                values=tuple(shown[: _FAILING_EPOCH - 1].tolist()),
                seconds=tuple(seconds[:_FAILING_EPOCH].tolist()),
                failure=failing,
            )
        return Training(values=tuple(shown.tolist()), seconds=tuple(seconds.tolist()))

    return Problem(
        name=name, space=SPACE, objectives=(ACCURACY,), truth=row_by_row(truth), epochs=EPOCHS, training=training
    )


def demo_curve(params: Params) -> NDArray[np.float64]:
    """Return the mean accuracy after each epoch, (12,)."""
    amplitude, tau = _shape(params)
    epochs = np.arange(1, EPOCHS + 1)
    return np.asarray(CHANCE + amplitude * (1 - np.exp(-((epochs / tau) ** _SHAPE))))


def demo_problems() -> dict[str, Callable[[], Problem]]:
    """Return the problems of this module by name: by noise, and with regions that fail."""
    found: dict[str, Callable[[], Problem]] = {}
    for noise in NOISES:
        found[noisy_name(noise)] = _maker(noisy_name(noise), noise, None)
    for kind in FailureKind:
        found[failing_name(kind)] = _maker(failing_name(kind), 0.02, kind)
    return found


def noisy_name(noise: float) -> str:
    """Return the name of the problem with this noise, such as demo_04 for 0.04."""
    return f"demo_{round(100 * noise):02d}"


def failing_name(kind: FailureKind) -> str:
    """Return the name of the problem in which a third of the space fails in this way."""
    return f"demo_{kind.value}"


def _maker(name: str, noise: float, failing: FailureKind | None) -> Callable[[], Problem]:
    return lambda: demo(name, noise, failing)


def _fails(params: Params, failing: FailureKind | None) -> bool:
    return failing is not None and float(params["lr"]) > FAILING_RATE


def _shape(params: Params) -> tuple[float, float]:
    """Return the accuracy gained over chance in the long run, and the epochs that most of it takes."""
    slowfast = params["model"] == "slowfast_r18"
    rate = math.log10(float(params["lr"]))
    best_rate, dead_rate = (-1.4, -0.8) if slowfast else (-1.6, -1.05)
    if rate > dead_rate:
        return 0.0, 1.0
    gain = math.exp(-(((rate - best_rate) / 0.9) ** 2))
    gain *= 1 - 1.2 * (float(params["dropout"]) - 0.15) ** 2
    gain *= 1 - 0.04 * (math.log10(float(params["weight_decay"])) + 3.5) ** 2
    gain *= {1: 0.85, 2: 1.0, 3: 0.93}[int(params["clip.stride"])]
    if slowfast:
        gain *= {8: 0.88, 16: 1.0}[int(params["model.width"])]
        gain *= {4: 1.0, 8: 0.94}[int(params["model.alpha"])]
        gain *= {2: 1.0, 4: 0.96}[int(params["model.beta_inv"])]
    else:
        gain *= 0.9
    tau = min(max(3.5 * 10 ** (0.5 * (best_rate - rate)), 2.5), 10.0)
    return _AMPLITUDE * gain, tau


def _epoch_seconds(params: Params) -> float:
    model = params["model"]
    return _EPOCH_SECONDS[model if model in _EPOCH_SECONDS else params["model.width"]]
