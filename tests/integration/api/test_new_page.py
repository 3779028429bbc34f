"""The form of a new study: fields and text are two views of one spec, and what is wrong stands beside its field."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import Engine

from api.auth import create_login_link

from .form import Form
from .service import KEY, Service, serving_alone


@contextmanager
def _logged_in(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60, headers={"Accept": "text/html"}) as browser:
        browser.get(create_login_link(service.database, KEY, service.url, token=service.tokens["admin"]))
        yield browser


@pytest.fixture(scope="module")
def browser(postgres_admin: Engine, migrated_template: str) -> Iterator[httpx.Client]:
    """A browser of an administrator, at a server that knows three models."""
    with (
        serving_alone(
            postgres_admin, migrated_template, list_models=lambda: ["r2plus1d_18", "slowfast_r18", "x3d_s"]
        ) as running,
        _logged_in(running) as found,
    ):
        running.create(name="taken")
        yield found


def sent(browser: httpx.Client, form: Form, button: str = "apply", **changes: str | None) -> Form:
    """Return the page after a button, with some fields changed; those that are None are not sent."""
    data = {**form.values, button: "yes"} | {f"f.{name.replace('__', '.')}": value for name, value in changes.items()}
    answer = browser.post("/new", data={name: value for name, value in data.items() if value is not None})
    assert answer.status_code in (200, 409, 422), answer.text
    return Form(answer.text)


def test_a_field_changes_its_value_in_the_text_and_nothing_else(browser: httpx.Client) -> None:
    form = Form(browser.get("/new").text)
    spec = form.values["spec"]
    changed = sent(browser, form, trials="7", root="/data/mine", space__lr__high="0.5", optimizer="tpe")
    expected = (
        spec.replace("trials: 40", "trials: 7")
        .replace("/data/videos", "/data/mine")
        .replace("high: 0.1,", "high: 0.5,")
    )
    assert changed.values["spec"] == f"{expected}optimizer: {{name: tpe}}\n"
    assert (changed.values["f.trials"], changed.values["was.trials"]) == ("7", "7")
    assert sent(browser, changed, trials="").values["spec"].count("budget") == 0, "an empty field is no value"


def test_a_text_that_is_too_long_is_refused_before_fields_are_written_into_it(browser: httpx.Client) -> None:
    form = Form(browser.get("/new").text)
    form.values["spec"] += "#" * 2**18
    refused = sent(browser, form, "create", trials="7")
    assert "a study spec has at most 262,144 bytes" in refused.html
    assert refused.values["spec"] == form.values["spec"]


def test_the_text_changes_what_the_fields_show(browser: httpx.Client) -> None:
    form = Form(browser.get("/new").text)
    form.values["spec"] = (
        form.values["spec"].replace("trials: 40", "trials: 99, gpu_hours: 3") + "retry: {attempts: 5}\n"
    )
    changed = sent(browser, form, epochs="30")
    assert (changed.values["f.trials"], changed.values["f.gpu_hours"]) == ("99", "3"), "what it did not change wins"
    assert "retry: {attempts: 5}\n" in changed.values["spec"]
    assert "epochs: 30" in changed.values["spec"]


def test_several_models_are_searched_and_one_is_fixed(browser: httpx.Client) -> None:
    form = Form(browser.get("/new").text)
    assert form.values["was.models"] == "r2plus1d_18"
    two = sent(browser, form, models__x3d_s="yes")
    assert "model: {type: categorical, choices: [r2plus1d_18, x3d_s]}" in two.values["spec"]
    assert "base: {batch_size: 16" in two.values["spec"]
    one = sent(browser, two, models__r2plus1d_18=None)
    assert "model: x3d_s}" in one.values["spec"]
    assert "categorical" not in one.values["spec"]


def test_what_is_wrong_stands_beside_its_field(browser: httpx.Client) -> None:
    form = Form(browser.get("/new").text)
    wrong = sent(browser, form, "create", trials="many", name="a b", seeds="99", space__lr__low="7", metric="val_top2")
    assert "Nothing was stored" in wrong.html
    assert "valid integer" in wrong.beside("trials")
    assert "50" in wrong.beside("seeds")
    assert "less than" in wrong.beside("space-lr-low")
    assert "did you mean 'val_loss'" in sent(browser, form, metric="val_lss").beside("metric")
    assert wrong.beside("epochs") == ""
    assert wrong.values["f.trials"] == "many", "what was typed stays"
    assert 'aria-describedby="field-trials-hint field-trials-problem" aria-invalid="true"' in wrong.html
    assert "taken" in sent(browser, form, name="taken").beside("name")
    assert sent(browser, form).html.count('aria-invalid="true"') == 0


def test_another_rule_has_no_options_of_the_former_one(browser: httpx.Client) -> None:
    form = Form(browser.get("/new").text)
    assert "early_stopping: {name: median}\n" in sent(browser, form, stopping="median").values["spec"]
    assert "early_stopping" not in sent(browser, form, stopping="none").values["spec"]
    assert (
        "early_stopping: {name: asha, min_epochs: 5, reduction: 3}"
        in sent(browser, form, early_stopping__min_epochs="5").values["spec"]
    )


def test_a_text_that_cannot_be_read_keeps_what_was_typed(browser: httpx.Client) -> None:
    form = Form(browser.get("/new").text)
    for text in ("name: [", "- 1\n", "budget: 3\nname: a\n"):
        form.values["spec"] = text
        answer = sent(browser, form, trials="8")
        assert answer.values["spec"] == text
        assert "wrong with the spec" in answer.html


def test_a_function_of_ones_own_has_its_metrics_and_no_videos(browser: httpx.Client) -> None:
    form = Form(browser.get("/new", params={"kind": "custom"}).text)
    assert "f.root" not in form.values
    assert '<option value="score">' in form.html
    changed = sent(browser, form, finalists="3", seeds="2", space__activation__choices="relu, silu")
    assert "finalists: {top: 3, seeds: 2}" in changed.values["spec"]
    assert "choices: [relu, silu]" in changed.values["spec"]
    assert "finalists" not in sent(browser, changed, finalists="", seeds="").values["spec"]
