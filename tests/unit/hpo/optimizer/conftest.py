"""What tests of several generators share."""

from __future__ import annotations

import pytest


@pytest.fixture
def short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search less thoroughly for the best acquisition: for tests of what holds of every proposal, good or not."""
    from hpo.optimizer.surrogate import search

    for name, value in (("CLOUD_EXPONENT", 7), ("ASCENT_STARTS", 2), ("ROUNDS", 1), ("CONTINUOUS_ITERATIONS", 5)):
        monkeypatch.setattr(search, f"_{name}", value)
