"""The oracle of the node of Ax: the same models and search, called without Ax."""

from __future__ import annotations

from hpo.optimizer.generator import GeneratorError
from hpo.optimizer.history import History
from hpo.optimizer.surrogate.plan import Plan
from hpo.optimizer.surrogate.search import deterministic
from hpo.trial import Params, Suggestion


class BoTorchGenerator:
    """Proposes by expected improvement (hypervolume improvement for several objectives) under the constraints."""

    def __init__(self, name: str = "botorch") -> None:
        self.name = name

    def propose(self, history: History, n: int) -> list[Suggestion]:
        """Return up to `n` configurations, each planned with the ones before it pending."""
        return self._plan(history, n, {})

    def complete(self, history: History, guess: Params) -> Suggestion:
        """Return the best new configuration that has the values of `guess`."""
        return self._plan(history, 1, guess)[0]

    def _plan(self, history: History, n: int, guess: Params) -> list[Suggestion]:
        with deterministic(history.spec.optimizer.seed):
            plan = Plan(history)
        fixed = plan.space.fixed(guess)
        found = []
        with deterministic(plan.seed):
            for _ in range(n):
                row = plan.best(plan.acquisition(), fixed)
                if row is None:
                    break
                found.append(plan.suggestion({**plan.space.decode(row), **guess}, self.name))
        if not found:
            raise GeneratorError("the search found no new configuration")
        return found
