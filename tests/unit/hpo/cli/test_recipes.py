"""`hpo recipes`: the list, as a table and as JSON, and one recipe as its file."""

from __future__ import annotations

import json

import yaml
from typer.testing import CliRunner

from hpo.cli.app import app
from hpo.errors import NotFoundError
from hpo.spec.recipes import list_recipes, recipe


def test_the_list_names_every_recipe_with_its_model() -> None:
    result = CliRunner().invoke(app, ["recipes"])
    assert result.exit_code == 0
    for name in list_recipes():
        assert name in result.output
        assert str(recipe(name).base["model"]) in result.output


def test_json_holds_the_settings() -> None:
    shown = json.loads(CliRunner().invoke(app, ["recipes", "--json"]).output)
    assert [one["name"] for one in shown] == list(list_recipes())
    assert {one["name"]: one["base"] for one in shown} == {name: dict(recipe(name).base) for name in list_recipes()}


def test_one_recipe_is_shown_as_its_file() -> None:
    output = CliRunner().invoke(app, ["recipes", "show", "tsm_ucf101"]).output
    assert output == recipe("tsm_ucf101").text
    assert yaml.safe_load(output)["epochs"] == 25


def test_an_unknown_recipe_is_an_error_of_one_sentence() -> None:
    error = CliRunner().invoke(app, ["recipes", "show", "tsm_ucf"]).exception
    assert isinstance(error, NotFoundError)
    assert str(error) == "there is no recipe 'tsm_ucf'; did you mean 'tsm_ucf101'?"
