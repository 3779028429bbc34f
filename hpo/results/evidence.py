"""What a study knows of one configuration: its value, how sure that is, and what to expect of it on new data."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[float, Field(allow_inf_nan=False)]


_LEAST_SPREAD: Final = 1e-12
"""Of a value; less is not a spread, but what stands where none is known."""


def spread_is_known(expected: float, sd: float) -> bool:
    """Return whether a standard deviation says anything: single values of a function without epochs show none."""
    return sd > _LEAST_SPREAD * max(abs(expected), _LEAST_SPREAD)


class Evidence(BaseModel):
    """The first objective of a configuration, in the unit of its metric, among the configurations of its study."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    observed: Number
    """Mean of the last values that its trials reported."""
    believed: Number
    """Where its trainings end, by all epochs of all its trials."""
    sd: Annotated[Number, Field(ge=0)]
    """Standard deviation of `believed` around the value on new data: epochs, seeds and validation clips."""
    clips: Annotated[int, Field(ge=1)] | None
    """Number of validation clips; null if it is unknown, or the metric is not a share of clips."""
    validated_on: Literal["clips", "images"] = "clips"
    """What `clips` counts."""
    trials: list[int]
    """The trials that trained this configuration to a result."""
    rank: Annotated[int, Field(ge=1)]
    """1 for the best configuration of the study."""
    configurations: Annotated[int, Field(ge=1)]
    """The configurations with a result that it was chosen among."""
    expected: Number
    """Expected on new data: the best of many noisy values is too good, and this effect of selection is taken off."""
    expected_sd: Annotated[Number, Field(ge=0)]
    probability_best: Annotated[float, Field(ge=0, le=1)]
    """Probability that no other configuration of the study is better on new data."""
    is_clear: bool
    """Whether it is the best one, and this probability is high enough to stop looking."""
    highest_observed: Number
    """The best value that any trial reported at its end: the luckiest."""
    highest_trial: int

    @property
    def spread_is_known(self) -> bool:
        """Whether anything has shown how far a value varies when the same configuration is run again."""
        return spread_is_known(self.expected, self.expected_sd)

    def lines(self) -> list[str]:
        """Return it as sentences for a person."""
        clips = "" if self.clips is None else f" on {self.clips} validation {self.validated_on}"
        count = len(self.trials)
        means = "" if count == 1 else f", from {count} trainings of this configuration"
        place = "the best" if self.rank == 1 else f"number {self.rank}"
        of_all = f"{place} of {self.configurations} configurations"
        if self.configurations == 1:
            of_all = "the only configuration with a result"
        leader = "it is clearly the best" if self.is_clear else "which of them is the best is not clear"
        if not self.spread_is_known:
            return [
                f"{self.metric} {self.believed:.6g}; {of_all}",
                "how far it varies from run to run is not known: `hpo study enqueue NAME --again TRIAL` shows it",
            ]
        found = [
            f"{self.metric} {self.believed:.3g} ± {self.sd:.2g}{clips}{means}; {of_all}",
            f"expected on new data: {self.expected:.3g} ± {self.expected_sd:.2g}",
        ]
        if self.configurations > 1:
            found.append(f"probability that it is the best of them: {self.probability_best:.0%}; {leader}")
        found.append(f"highest observed value: {self.highest_observed:.3g} (trial {self.highest_trial})")
        return found
