"""Surrogates of YAHPO Gym (Pfisterer et al., 2022), evaluated with onnxruntime from a folder of its data.

lcbench: a fully connected network on an OpenML task, validation accuracy after each of 52 epochs. rbv2_xgboost:
XGBoost with parameters that exist for some boosters only, accuracy. On 17 of 34 lcbench tasks the optimum of the
surrogate is in an extrapolated corner; only other tasks are used.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpo.spec import AnyParameter, CategoricalParameter, FloatParameter, IntParameter
from hpo.trial import Params

from .problem import ACCURACY, Problem, ProblemMissing

LCBENCH_TASKS: Final = ("126029", "167104", "167184", "189905")
LCBENCH_EPOCHS: Final = 52
XGBOOST_TASK: Final = "40981"

# The order in which the networks take their inputs.
_LCBENCH_INPUTS: Final = (
    "epoch", "batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units", "max_dropout",
)  # fmt: skip
_XGBOOST_INPUTS: Final = (
    "nrounds", "eta", "gamma", "lambda", "alpha", "subsample", "max_depth", "min_child_weight", "colsample_bytree",
    "colsample_bylevel", "rate_drop", "skip_drop", "trainsize", "repl",
)  # fmt: skip
_LCBENCH_ACCURACY: Final = 1
_XGBOOST_ACCURACY: Final = 0


def lcbench(name: str, task: str, folder: Path) -> Problem:
    """Return the problem of one lcbench task, with learning curves."""
    surrogate = _surrogate(folder / "lcbench")
    space = {key: value for key, value in surrogate.space.items() if key not in ("model.epoch", "model.OpenML_task_id")}
    code = surrogate.codes["OpenML_task_id"][task]

    def outputs(many: Sequence[Params], epochs: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = [[float(params[f"model.{key}"]) for key in _LCBENCH_INPUTS[1:]] for params in many]
        inputs = np.column_stack([epochs, np.array(rows)])
        return surrogate(np.full((len(inputs), 1), code), inputs)[:, [_LCBENCH_ACCURACY]] / 100

    def truth(many: Sequence[Params]) -> NDArray[np.float64]:
        return outputs(many, np.full(len(many), float(LCBENCH_EPOCHS)))

    def curve(params: Params) -> NDArray[np.float64]:
        return outputs([params] * LCBENCH_EPOCHS, np.arange(1.0, LCBENCH_EPOCHS + 1))[:, 0]

    return Problem(name=name, space=space, objectives=(ACCURACY,), truth=truth, epochs=LCBENCH_EPOCHS, curve=curve)


def xgboost(name: str, task: str, folder: Path) -> Problem:
    """Return the problem of rbv2_xgboost on one task, with the full training set."""
    surrogate = _surrogate(folder / "rbv2_xgboost")
    fixed = {"model.trainsize": 1.0, "model.repl": 10.0}
    space = {key: value for key, value in surrogate.space.items() if key not in {*fixed, "model.task_id"}}
    boosters, imputations = surrogate.codes["booster"], surrogate.codes["num.impute.selected.cpo"]

    def truth(many: Sequence[Params]) -> NDArray[np.float64]:
        codes = [
            [
                surrogate.codes["task_id"][task],
                boosters[str(params["model.booster"])],
                imputations[str(params["model.num.impute.selected.cpo"])],
            ]
            for params in many
        ]
        # The network was trained with 0 for inactive parameters.
        rows = [[float({**fixed, **params}.get(f"model.{key}", 0.0)) for key in _XGBOOST_INPUTS] for params in many]
        return surrogate(np.array(codes), np.array(rows))[:, [_XGBOOST_ACCURACY]]

    return Problem(name=name, space=space, objectives=(ACCURACY,), truth=truth)


class _Surrogate:
    """One network with its search space and the codes of its categories."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "model.onnx").is_file():
            raise ProblemMissing(f"there is no surrogate {folder / 'model.onnx'}: name the data folder with --yahpo")
        if importlib.util.find_spec("onnxruntime") is None:
            raise ProblemMissing("onnxruntime is not installed; pip install onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
        self.codes: Mapping[str, Mapping[str, int]] = json.loads((folder / "encoding.json").read_text())
        raw = json.loads((folder / "config_space.json").read_text())
        conditions: dict[str, dict[str, list[Any]]] = {}
        for found in raw["conditions"]:
            values = found["values"] if found["type"] == "IN" else [found["value"]]
            conditions.setdefault(found["child"], {})[f"model.{found['parent']}"] = list(values)
        self.space: Mapping[str, AnyParameter] = {
            f"model.{entry['name']}": _parameter(entry, conditions.get(entry["name"], {}))
            for entry in raw["hyperparameters"]
        }

    def __call__(self, codes: NDArray[Any], inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        fed = {"x_cat": codes.astype(np.int32), "x_cont": inputs.astype(np.float32)}
        return np.asarray(self._session.run(None, fed)[0], dtype=np.float64)


@cache
def _surrogate(folder: Path) -> _Surrogate:
    return _Surrogate(folder)


def _parameter(entry: Mapping[str, Any], when: dict[str, list[Any]]) -> AnyParameter:
    if entry["type"] == "categorical":
        return CategoricalParameter(type="categorical", choices=list(entry["choices"]), when=when)
    kind = IntParameter if entry["type"] == "uniform_int" else FloatParameter
    fields = {"low": entry["lower"], "high": entry["upper"], "log": entry["log"], "when": when}
    return kind.model_validate({"type": "int" if kind is IntParameter else "float", **fields})
