"""What becomes of results from elsewhere, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..errors import SetupError
from .fitting import Fitted
from .found import Results


def sentences(results: Results, fitted: Fitted, added: Sequence[int] | None) -> Iterator[str]:
    """Yield what was imported, what was left out and why, and what to know; `added` is None where it is only looked at.

    `added` are the numbers of the new trials; others were there already.
    """
    states = [sum(trial.state == state for trial in fitted.trials) for state in ("completed", "stopped", "failed")]
    kinds = ", ".join(f"{n} {state}" for n, state in zip(states, ("completed", "stopped", "failed"), strict=True) if n)
    total = len(results.trials) + results.open
    what = f"{len(fitted.trials)} of {total} trial{'' if total == 1 else 's'} of {results.source} ({kinds})"
    yield f"would import {what}" if added is None else f"{what} fit the study"
    if added is not None:
        known = len(fitted.trials) - len(added)
        there = f"; {known} were there already" if known else ""
        numbers = (
            f" as trials {added[0]} to {added[-1]}" if len(added) > 1 else f" as trial {added[0]}" if added else ""
        )
        yield f"imported {len(added)}{numbers}{there}"
    yield from (f"left out {reason}" for reason in _reasons(fitted))
    yield from (f"note: {note}" for note in fitted.notes)


def nothing_fits(results: Results, fitted: Fitted) -> SetupError:
    """Return the error that says why nothing was imported."""
    why = "; ".join(_reasons(fitted)) or "it is empty"
    return SetupError(f"nothing of {results.source} fits this study: {why}")


def _reasons(fitted: Fitted) -> Iterator[str]:
    return (f"{count}: {reason}" for reason, count in fitted.left_out.items())
