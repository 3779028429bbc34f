"""`hpo models`: the zoo as a table and as JSON."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from hpo.cli.app import app
from models import list_models, model_info


def test_every_model_is_a_row() -> None:
    lines = CliRunner().invoke(app, ["models"]).output.splitlines()
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    rows = [row for row in rows if row[0]]  # without the further lines of a row with many options
    assert [row[0] for row in rows] == list(list_models())
    info = model_info("r2plus1d_18")
    (row,) = [row for row in rows if row[0] == "r2plus1d_18"]
    assert info.parameters is not None
    assert row[2:5] == [
        f"{info.parameters / 1e6:.1f} M",
        f"{info.gflops:.1f}",
        f"{info.clip.frames}x{info.clip.stride} at {info.clip.size}",
    ]


def test_json_has_every_option_of_a_model() -> None:
    found = {model["name"]: model for model in json.loads(CliRunner().invoke(app, ["models", "--json"]).output)}
    assert list(found) == list(list_models())
    options = [option["name"] for option in found["slowfast_r50_4x16"]["hparams"]]
    assert options == [option.name for option in model_info("slowfast_r50_4x16").hparams]
    assert "alpha" in options
