"""A command that there is not leads to the one that was meant."""

from __future__ import annotations

import pytest

from hpo.cli import main


@pytest.mark.parametrize(
    ("written", "meant"),
    [("study remove x", "delete"), ("study paws x", "pause"), ("trial kill x 1", "cancel"), ("eval", "evaluate")],
)
def test_a_command_is_understood_by_its_meaning(written: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(written.split())
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "No such command" in said
    assert f"Did you mean '{meant}'?" in said
