"""SMAC3 and Syne Tune behind pipes: a program for an environment of its own (`peers.txt`) without this project.

A request is one line of JSON on stdin, `{"call": NAME, ...}`, and the answer one line on stdout, `{"answer": ...}`. The
first request is `start`, with the peer, the space as dictionaries of parameters (categories and ordinals are sent and
returned as places in their lists), the seed, the epochs of a training, the first epoch at which a rule may stop, and
the number of trainings. What is optimized is minimized; the caller turns the sign.

    ask     -> [trial, values by place of the parameter, is model]; a known trial shall continue where it paused
    report  (trial, step, value) -> "continue", "stop" or "pause"
    tell    (trial, value)       the trial reached its last epoch
    fail    (trial)
"""

from __future__ import annotations

import json
import logging
import math
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

Parameter = Mapping[str, Any]
REDUCTION = 3
FAILED_LOSS = 0.0
"""The loss of a failure before any other trial has shown one: an accuracy of 0."""


class Peer(Protocol):
    """One optimizer of another library."""

    def ask(self) -> tuple[int, dict[int, Any], bool]:
        """Return a trial, its values by place of the parameter, and whether a model chose it."""
        ...

    def report(self, trial: int, step: int, loss: float) -> str:
        """Return what happens to the trial after an epoch."""
        ...

    def tell(self, trial: int, loss: float) -> None:
        """Record the end of a trial."""
        ...

    def fail(self, trial: int) -> None:
        """Record that a trial failed."""
        ...


class Smac:
    """SMAC3's multi-fidelity facade: random forests under Hyperband, by ask and tell.

    A configuration pauses at the epochs of its budget, and goes on when a larger budget is asked of it.
    """

    def __init__(self, space: Sequence[Parameter], start: Mapping[str, Any]) -> None:
        from smac import MultiFidelityFacade, Scenario

        self._epochs: int = start["epochs"]
        # With halving from a third of the epochs, an evaluation costs less than half a training.
        scenario = Scenario(
            _configuration_space(space, start["seed"]), deterministic=True, min_budget=start["min_epochs"],
            max_budget=start["epochs"], n_trials=round(2.4 * start["trainings"]), seed=start["seed"],
            output_directory=tempfile.mkdtemp(),
        )  # fmt: skip
        self._smac = MultiFidelityFacade(
            scenario, _never_called, intensifier=MultiFidelityFacade.get_intensifier(scenario, eta=REDUCTION),
            overwrite=True, logging_level=logging.CRITICAL,
        )  # fmt: skip
        self._trials: dict[Any, int] = {}
        self._asked: dict[int, Any] = {}
        self._worst = FAILED_LOSS

    def ask(self) -> tuple[int, dict[int, Any], bool]:
        """Return a new trial, or one that continues with a larger budget."""
        info = self._smac.ask()
        trial = self._trials.setdefault(info.config, len(self._trials))
        self._asked[trial] = info
        values = {int(name[1:]): value for name, value in dict(info.config).items()}
        return trial, {place: _plain(value) for place, value in values.items()}, "nitial" not in info.config.origin

    def report(self, trial: int, step: int, loss: float) -> str:
        """Return `pause` where the budget of the trial ends."""
        if step == self._epochs or step < math.ceil(self._asked[trial].budget):
            return "continue"
        self.tell(trial, loss)
        return "pause"

    def tell(self, trial: int, loss: float) -> None:
        """Record the loss at the end of the budget."""
        from smac.runhistory.dataclasses import TrialValue

        self._worst = max(self._worst, loss)
        self._smac.tell(self._asked[trial], TrialValue(cost=loss, time=1.0))

    def fail(self, trial: int) -> None:
        """Record a crash, with the worst loss seen."""
        from smac.runhistory.dataclasses import TrialValue
        from smac.runhistory.enumerations import StatusType

        self._smac.tell(self._asked[trial], TrialValue(cost=self._worst, time=1.0, status=StatusType.CRASHED))


class SyneTune:
    """Syne Tune's ASHA with conformalized quantile regression (Salinas et al., 2023): ASHACQR, by its scheduler.

    The space is flat: inactive parameters have values that are ignored.
    """

    def __init__(self, space: Sequence[Parameter], start: Mapping[str, Any]) -> None:
        import numpy as np
        from syne_tune.optimizer.baselines import ASHACQR

        np.random.seed(start["seed"])
        self._scheduler = ASHACQR(
            config_space=_syne_tune_space(space), metric="loss", do_minimize=True, time_attr="epoch",
            max_t=start["epochs"], grace_period=start["min_epochs"], reduction_factor=REDUCTION,
            random_seed=start["seed"],
        )  # fmt: skip
        self._trials: list[Any] = []

    def ask(self) -> tuple[int, dict[int, Any], bool]:
        """Return a new trial."""
        from datetime import datetime

        from syne_tune.backend.trial_status import Trial

        suggestion = self._scheduler.suggest()
        trial = Trial(trial_id=len(self._trials), config=suggestion.config, creation_time=datetime.now())
        self._trials.append(trial)
        self._scheduler.on_trial_add(trial)
        values = {int(name[1:]): _plain(value) for name, value in suggestion.config.items()}
        return trial.trial_id, values, True

    def report(self, trial: int, step: int, loss: float) -> str:
        """Return `stop` where the trial is outside the best of its rung."""
        found = self._scheduler.on_trial_result(self._trials[trial], {"loss": loss, "epoch": step})
        return "stop" if found == "STOP" else "continue"

    def tell(self, trial: int, loss: float) -> None:
        """Do nothing: the last epoch was reported."""

    def fail(self, trial: int) -> None:
        """Record an error, which the searcher is told of."""
        self._scheduler.on_trial_error(self._trials[trial])


PEERS: Mapping[str, Callable[[Sequence[Parameter], Mapping[str, Any]], Peer]] = {"smac": Smac, "cqr": SyneTune}


def main() -> None:
    """Answer requests until stdin ends."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    # Whatever the libraries print goes to stderr.
    answers, sys.stdout = sys.stdout, sys.stderr
    peer: Peer | None = None
    for line in sys.stdin:
        request = json.loads(line)
        call = request.pop("call")
        try:
            if call == "start":
                peer = PEERS[request["peer"]](request["space"], request)
                reply: dict[str, Any] = {"answer": None}
            else:
                reply = {"answer": getattr(peer, call)(**request)}
        except Exception:
            # The caller shows it; a library may raise anything.
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), file=answers, flush=True)


def _configuration_space(space: Sequence[Parameter], seed: int) -> Any:
    """Return the space for SMAC, with its conditions."""
    import ConfigSpace as cs

    found = cs.ConfigurationSpace(seed=seed)
    known = {}
    for place, parameter in enumerate(space):
        name = f"p{place}"
        match parameter["type"]:
            case "categorical":
                known[place] = cs.CategoricalHyperparameter(name, list(range(parameter["size"])))
            case "ordinal":
                known[place] = cs.OrdinalHyperparameter(name, list(range(parameter["size"])))
            case "int":
                known[place] = cs.UniformIntegerHyperparameter(
                    name, parameter["low"], parameter["high"], log=parameter["log"]
                )
            case "float":
                known[place] = cs.UniformFloatHyperparameter(
                    name, parameter["low"], parameter["high"], log=parameter["log"]
                )
    found.add(list(known.values()))
    for place, parameter in enumerate(space):
        conditions = [cs.InCondition(known[place], known[parent], values) for parent, values in parameter["when"]]
        if conditions:
            found.add(conditions[0] if len(conditions) == 1 else cs.AndConjunction(*conditions))
    return found


def _syne_tune_space(space: Sequence[Parameter]) -> dict[str, Any]:
    from syne_tune.config_space import choice, lograndint, loguniform, ordinal, randint, uniform

    found = {}
    for place, parameter in enumerate(space):
        match parameter["type"]:
            case "categorical":
                domain = choice(list(range(parameter["size"])))
            case "ordinal":
                domain = ordinal(list(range(parameter["size"])), kind="equal")
            case "int":
                domain = (lograndint if parameter["log"] else randint)(parameter["low"], parameter["high"])
            case _:
                domain = (loguniform if parameter["log"] else uniform)(parameter["low"], parameter["high"])
        found[f"p{place}"] = domain
    return found


def _plain(value: Any) -> Any:
    """Return a number of NumPy as one of Python."""
    return value.item() if hasattr(value, "item") else value


def _never_called(config: Any, seed: int, budget: float) -> float:
    raise AssertionError("trials are asked and told")


if __name__ == "__main__":
    main()
