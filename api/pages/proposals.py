"""Why the optimizer proposes a configuration, as a phrase."""

from __future__ import annotations

from statistics import NormalDist

from hpo.answer import Answer
from hpo.results.outcome import gain
from hpo.spec import Objective
from hpo.trial import ENQUEUED, TrialRecord

from .words import percent, shown


def why(record: TrialRecord, objective: Objective, answer: Answer | None) -> str:
    """Return why a waiting trial is to be trained: who asked for it, or what the model expects of it."""
    if record.replicate_of is not None:
        return f"trains trial {record.replicate_of} again with another seed"
    if record.generator in (ENQUEUED, "manual"):
        return "a person asked for it"
    if record.predicted_mean is not None and record.predicted_sd and answer is not None:
        return f"{record.generator}: {_chances(record, objective, answer)}"
    if (record.generator or "").startswith("sobol"):
        return f"{record.generator}: spread evenly over the space, without a model"
    return f"{record.generator}: no prediction was made"


def _chances(record: TrialRecord, objective: Objective, answer: Answer) -> str:
    best = answer.winner.first.believed
    ahead = gain(objective, record.predicted_mean or 0.0) - gain(objective, best)
    chance = NormalDist().cdf(ahead / (record.predicted_sd or 1.0))
    likely = percent(chance) if chance >= 0.01 else "less than 1%"
    said = f"better than the best ({shown(best)}) with a probability of {likely}"
    if record.predicted_feasibility is not None:
        said += f", keeps the constraints with {percent(record.predicted_feasibility)}"
    return said
