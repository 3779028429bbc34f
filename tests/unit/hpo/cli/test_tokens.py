"""How long a token is valid is written as a person says it."""

from __future__ import annotations

import pytest
import typer

from hpo.cli import tokens


@pytest.mark.parametrize(("text", "hours"), [("12h", 12.0), ("7 d", 168.0), ("30m", 0.5), ("1.5w", 252.0)])
def test_a_time_is_a_number_and_its_unit(text: str, hours: float) -> None:
    assert tokens._hours(text) == hours


@pytest.mark.parametrize("text", ["", "7", "d", "-1h", "7 days", "1e3h"])
def test_what_is_no_time_is_said(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="such as 12h or 7d"):
        tokens._hours(text)
