"""Training the leaders of a study again with fresh seeds, before one of them is called the best."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictInt

from .parameters import Strict


class FinalistsConfig(Strict):
    """How many of the best configurations are trained again after the search, how often, and for what share of it."""

    top: Annotated[StrictInt, Field(ge=2, le=50)] = 3
    """At most this many configurations."""
    seeds: Annotated[StrictInt, Field(ge=1, le=50)] = 3
    """At most this many further trainings of each, every one with a seed of its own."""
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.15
    """The share of the budget that they may use: the last one of the GPU hours and wall hours; of `budget.trials` as
    many again, on top of it, and those that the search has left."""
    probability: Annotated[float, Field(ge=0.5, lt=1)] = 0.9
    """No more are trained once one of them is the best of them with at least this probability."""

    def most_of(self, trials: int | None, *, unused: int = 0) -> int:
        """Return how many trainings there may be after a search with a budget of `trials`, if it has one.

        `unused` trials of the budget were left when the search ended, such as one whose space is used up.
        """
        everything = self.top * self.seeds
        # 0.15 x 60 is 8.999999999999998.
        return everything if trials is None else min(everything, int(self.share * trials + 1e-9) + unused)
