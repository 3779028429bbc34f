"""How much each parameter matters for a metric, and in which direction; plain values, without torch or Ax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ..trial import ParamValue

LEAST_OUTCOMES: Final = 5
"""With fewer trials with an outcome, what the models show is mostly what they believed before."""
LEAST_EXPLAINED: Final = 0.1
"""A model that explains a smaller share of the variance of a metric knows next to nothing of it; Ax has the same bound
for a metric that cannot be predicted."""
_MONOTONE: Final = 0.9
"""A curve whose ends differ by this share of its whole height rises or falls."""


class Trend(StrEnum):
    """How a metric changes with a number."""

    RISES = "rises"
    FALLS = "falls"
    HIGHEST = "highest at"
    LOWEST = "lowest at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """How much one parameter matters for one metric, by the model."""

    parameter: str
    share: float
    """Total-order Sobol index, as a share of the sum over all parameters, 0 to 1."""
    low: float | None = None
    high: float | None = None
    """The share has a probability of 90 % to lie between these, by the model; None where an earlier release did not
    say it, and where the metric is the same in all trials."""
    trend: Trend | None = None
    """None for parameters without an order, and where the model sees no difference."""
    at: ParamValue | None = None
    """The value of the parameter with the highest or lowest prediction, where the trend names one."""

    @property
    def interval(self) -> str:
        """The interval in words, such as `41 to 73%`; an empty string where it is not known."""
        return "" if self.low is None or self.high is None else f"{100 * self.low:.0f} to {self.high:.0%}"

    def direction(self, metric: str) -> str:
        """Return the trend in words, such as `val_top1 is highest at 0.012`; an empty string without one."""
        if self.trend is None:
            return ""
        if self.at is None:
            return f"{metric} {self.trend} with it"
        return (
            f"{metric} is {self.trend} {self.at:.3g}"
            if isinstance(self.at, float)
            else f"{metric} is {self.trend} {self.at}"
        )


def explained_sentence(metric: str, explained: float | None) -> str:
    """Return how much of a metric its model explains, as a sentence.

    Shares of importance add up to 1 also where the model explains nothing, so this goes before them.

    Args:
        explained: the share of the variance (R²); None where the metric is the same in all trials.
    """
    if explained is None:
        return f"{metric} is the same in all trials."
    if explained < LEAST_EXPLAINED:
        return f"The model explains next to nothing of {metric} yet."
    return f"The model explains {explained:.0%} of the variance of {metric} in trials that it has not seen."


def trend_of(values: Sequence[ParamValue], means: Sequence[float]) -> tuple[Trend | None, ParamValue | None]:
    """Return the trend of predictions along the increasing values of a parameter, and the value at a turning point."""
    low, high = min(means), max(means)
    if len(means) < 2 or high - low <= 1e-9 * max(abs(low), abs(high)):
        return None, None
    change = means[-1] - means[0]
    if abs(change) >= _MONOTONE * (high - low):
        return (Trend.RISES if change > 0 else Trend.FALLS), None
    middle = (means[0] + means[-1]) / 2
    if high - middle >= middle - low:
        return Trend.HIGHEST, values[means.index(high)]
    return Trend.LOWEST, values[means.index(low)]
