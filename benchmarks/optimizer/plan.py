"""The runs to do, in order: cheap methods first, then by seed, so that partial results cover all problems alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from .latency import COUNTS
from .methods import BRIDGED, METHODS, OURS, PRUNERS, SIMPLE_RULES
from .protocols import NOISES, PROBLEMS_OF, TRAININGS
from .rows import Run

FIDELITY_RULES: Final = ("asha", "curves", "curves+pause")
SERVICE: Final = (
    *(f"{base}{rule}" for base in ("random", "sobol", "tpe", "gp") for rule in ("", *(f"+{r}" for r in SIMPLE_RULES))),
    *BRIDGED,
    OURS,
    *(f"{OURS}+{rule}" for rule in (*SIMPLE_RULES, "curves")),
)
"""The methods of the simulated service."""
METHODS_OF: Final[Mapping[str, Sequence[str]]] = {
    "sequential": ("random", "tpe", OURS, "gp", "ax"),
    "asynchronous": ("random", "tpe", OURS, "gp"),
    "fidelity": (
        "tpe",
        *(f"tpe+{pruner}" for pruner in PRUNERS),
        *(f"{OURS}+{name}" for name in FIDELITY_RULES),
    ),
    **dict.fromkeys(NOISES, ("tpe", "tpe+asha", "tpe+median", f"{OURS}+asha", f"{OURS}+curves")),
    "memory": ("random", "tpe", OURS, "gp", "ax"),
    "hypervolume": ("random", "nsga2", "tpe", OURS, "gp", "ax"),
    **{f"service{trainings}": SERVICE for trainings in TRAININGS},
    "service20x4": ("sobol+asha", "tpe+asha", "gp+asha", f"{OURS}+asha"),
    "failing": ("sobol", "tpe", OURS),
}
SEEDS: Final = 20
SEEDS_OF: Final[Mapping[str, int]] = {"gp": 8, "ax": 6, "gp+asha": 10, "gp+median": 10, **dict.fromkeys(BRIDGED, 10)}
"""Fewer seeds for methods that take minutes per run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The runs that the user selected; empty means all."""

    protocols: Sequence[str] = ()
    problems: Sequence[str] = ()
    methods: Sequence[str] = ()
    seeds: Sequence[int] = field(default=())
    """Replaces the default seeds of every method."""
    scramble: int | None = None


def planned(selection: Selection) -> Iterator[Run]:
    """Yield the selected runs in the order in which to do them, except those of `latency`."""
    for method in METHODS:
        if selection.methods and method not in selection.methods:
            continue
        for seed in selection.seeds or range(SEEDS_OF.get(method, SEEDS)):
            for protocol in selection.protocols or METHODS_OF:
                if method not in METHODS_OF.get(protocol, ()):
                    continue
                for problem in PROBLEMS_OF[protocol]:
                    if not selection.problems or problem in selection.problems:
                        yield Run(protocol, problem, method, seed, selection.scramble)


def latency_counts(selection: Selection) -> Sequence[int]:
    """Return the numbers of trials at which time is measured; none if `latency` is not selected."""
    return COUNTS if not selection.protocols or "latency" in selection.protocols else ()
