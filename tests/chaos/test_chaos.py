"""No kill and no lost message loses, doubles or changes what was acknowledged. `make chaos` runs it for long."""

from __future__ import annotations

import os

import pytest

from . import rig
from .processes import Mutant

MINUTES = float(os.environ.get("CHAOS_MINUTES", "0"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
MUTANTS: dict[str, Mutant] = {
    "a report without a fence": (
        "report",
        "AND attempt = :attempt\n      AND lease_id = CAST(:lease_id AS uuid)\n",
        "",
    ),
    "a measurement that is not kept": ("report", "ON CONFLICT (trial_id, attempt, step) DO NOTHING", "LIMIT 0"),
    "GPU time counted again when a report is repeated": (
        "report",
        "DO NOTHING",
        "DO UPDATE SET created_at = clock_timestamp()",
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_chaos_breaks_no_promise() -> None:
    found = rig.run(seconds=max(20.0, 60 * MINUTES), seed=SEED)
    print(found)
    assert not found.violations, str(found)
    assert found.kills, str(found)
    assert found.functions, str(found)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_chaos_notices(mutant: str) -> None:
    for seed in range(1, 6):
        if rig.run(seconds=12.0, seed=seed, mutant=MUTANTS[mutant]).violations:
            return
    pytest.fail("nothing was noticed")
