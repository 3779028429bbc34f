"""`hpo report` and `hpo importance` of studies with and without results, against a real server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from api.dashboard.source import DatabaseSource
from hpo.optimizer.sobol import sobol_points
from hpo.protocol import Confusion
from hpo.service.importance import IMPORTANCE
from hpo.spec import parse_spec, stored_spec
from hpo.spec.values import value_at
from hpo.store import confusions, events, studies, trials

from ..api.service import Service, claim_body, finished, measured, spec
from .conftest import Command

SECTIONS = ["study", "answer", "importance", "effects", "model", "progress", "confusion", "cost", "parallel"]
SECTIONS += ["checks", "failures", "repeat"]
SPACE = {
    "lr": {"type": "float", "low": 1e-4, "high": 0.3, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.8},
    "model": {"type": "categorical", "choices": ["r2plus1d_18", "slowfast_r18"]},
    "model.alpha": {"type": "ordinal", "choices": [4, 8], "when": {"model": ["slowfast_r18"]}},
}


class Page(HTMLParser):
    """The tags of a page, the text of each section, and the figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self.figures: dict[str, dict[str, Any]] = {}
        self._section = self._figure = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "section":
            self._section = str(given["id"])
            self.text[self._section] = ""
        self._figure = str(given["id"]) if given.get("type") == "application/json" else ""
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self._figure:
            self.figures[self._figure] = json.loads(data)
            self._figure = ""
        elif self._section and self._open[-1] != "script":
            self.text[self._section] += data


@pytest.fixture
def report(hpo: Command, tmp_path: Path) -> Callable[[Service], Page]:
    """Return the page that `hpo report demo` writes."""

    def make(service: Service) -> Page:
        file = tmp_path / "new" / "report.html"
        said = hpo(service, "report", "demo", "--output", file, scope="read")
        assert (said.code, said.err) == (0, "")
        assert said.out == f"wrote {file}: open it in a browser\n"
        return Page(file.read_text(encoding="utf-8"))

    return make


def _study(service: Service, outcomes: int, *, is_same: bool = False, **sections: Any) -> None:
    """Make a study whose trials end with a value that lr changes much and dropout little, or all with the same."""
    study_id = service.create(space=SPACE, **sections)
    space = parse_spec(spec(space=SPACE, **sections))
    points = []
    for row in sobol_points(len(SPACE), 1, 4)[:outcomes]:
        values = {key: value_at(parameter, u) for (key, parameter), u in zip(space.space.items(), row, strict=True)}
        points.append(dict(space.active(values)))
    if points:
        service.suggest(study_id, points=points)
    with service.http("worker") as http:
        for _ in points:
            lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
            params = lease["params"]
            top = 0.9 - 0.2 * abs(float(params["lr"]) / 0.3) ** 0.3 - 0.05 * float(params["dropout"])
            top = 0.5 if is_same else top
            for step, share in enumerate((0.6, 0.8, 1.0), start=1):
                body = measured(lease, step, top * share, epoch_seconds=10 - 5 * float(params["dropout"]))
                http.post(f"/v1/trials/{lease['trial_id']}/reports", json=body).raise_for_status()
            end = {**finished(lease, top), "metrics": {"val_top1": top, "epoch_seconds": 10 - 5 * params["dropout"]}}
            http.post(f"/v1/trials/{lease['trial_id']}/finish", json=end).raise_for_status()


def _assert_whole(page: Page) -> None:
    """Check that every section is there and says something, and that nothing is loaded from elsewhere."""
    assert list(page.text) == SECTIONS
    assert all(len(text.split()) > 3 for text in page.text.values())
    assert page._open == []
    for tag, given in page.tags:
        assert tag not in ("link", "iframe", "img", "base", "object")
        assert not {"src", "href", "srcset"} & given.keys(), (tag, given)
    policies = [given["content"] for _, given in page.tags if given.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert str(policies[0]).startswith("default-src 'none'")
    drawn = [given["data-figure"] for _, given in page.tags if "data-figure" in given]
    assert sorted(map(str, drawn)) == sorted(page.figures)


def test_a_study_without_results_has_every_section_in_sentences(
    service: Service, report: Callable[[Service], Page]
) -> None:
    _study(service, 0)
    page = report(service)
    _assert_whole(page)
    assert page.figures == {}
    assert "No trial has a result" in page.text["answer"]
    assert "0 trials have an outcome; a model needs at least 5" in page.text["importance"]


def test_with_three_results_there_is_an_answer_and_no_model(
    service: Service, report: Callable[[Service], Page]
) -> None:
    _study(service, 3)
    page = report(service)
    _assert_whole(page)
    assert set(page.figures) == {"figure-progress", "figure-curves", "figure-parallel"}
    assert "the best of 3 configurations" in page.text["answer"]
    for section in ("importance", "effects", "model"):
        assert "3 trials have an outcome; a model needs at least 5" in page.text[section]


def test_the_report_of_two_objectives_in_a_conditional_space(
    service: Service, report: Callable[[Service], Page], hpo: Command
) -> None:
    _study(service, 12, objectives=[{"metric": "val_top1"}, {"metric": "epoch_seconds"}], optimizer={"name": "tpe"})
    page = report(service)
    _assert_whole(page)
    best = hpo(service, "best", "demo", "--json").json
    assert f"The best configuration (trial {best['number']})" in page.text["answer"]
    assert f"expected on new data: {best['evidence']['expected']:.3g}" in page.text["answer"]
    bars = page.figures["figure-importance-epoch_seconds"]["data"][0]
    assert bars["y"][-1] == "dropout", "the most important parameter is at the top"
    assert bars["x"][-1] > 80
    assert "dropout: epoch_seconds falls with it" in page.text["importance"]
    slices = [name for name in page.figures if name.startswith("figure-slice-val_top1-")]
    assert slices
    lr = page.figures["figure-slice-val_top1-lr"]["layout"]["xaxis"]
    assert (lr["type"], lr["title"]["text"]) == ("log", "lr (logarithmic)")
    front = page.figures["figure-front"]
    assert front["layout"]["xaxis"]["title"]["text"] == "epoch_seconds (s per epoch)"
    (dots,) = [trace for trace in front["data"] if trace["name"] == "front"]
    with service.http("read") as http:
        numbers = http.get("/v1/studies/demo/answer").json()["front"]
    assert sorted(dots["text"]) == sorted(f"trial {number}" for number in numbers)
    alpha = next(
        one for one in page.figures["figure-parallel"]["data"][0]["dimensions"] if one["label"] == "model.alpha"
    )
    assert alpha["ticktext"] == ["(inactive)", "4", "8"]
    assert set(alpha["values"]) == set(alpha["tickvals"])
    assert "R²" in page.text["model"]


CLASSES = ["ApplyEyeMakeup", "<b>Archery</b>", "Basketball", "BenchPress"]
CELLS = [[0, 0, 9], [0, 1, 1], [1, 1, 6], [1, 3, 4], [2, 2, 10], [3, 3, 8], [3, 1, 2]]


def test_a_report_shows_what_the_best_trial_confuses_what_it_cost_and_is_a_picture_too(
    service: Service, report: Callable[[Service], Page], hpo: Command, tmp_path: Path
) -> None:
    _study(service, 12)
    best = hpo(service, "best", "demo", "--json").json["number"]
    with service.database.transaction() as connection:
        record = trials.get(connection, studies.id_of(connection, "demo"), best)
        counts = Confusion(step=3, class_names=CLASSES, videos=[10] * 4, cells=[(a, b, n) for a, b, n in CELLS])
        confusions.keep(connection, record.id, counts, attempt=1)
    page = report(service)
    _assert_whole(page)
    said = page.text["confusion"]
    assert "After epoch 3, 33 of 40 validation videos were classified rightly (82.5%)" in said
    assert "The hardest classes: <b>Archery</b> (60% of 10), BenchPress (80% of 10)" in said
    assert "<b>Archery</b>BenchPress4 of 10" in said
    (cells,) = page.figures["figure-confusion"]["data"]
    assert cells["z"][1] == [0.0, 0.6, 0.0, 0.4]
    assert "in all" in page.text["cost"]
    file = tmp_path / "report.png"
    made = hpo(service, "report", "demo", "-o", file)
    assert (made.code, made.out) == (0, f"wrote {file}\n"), made
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        width, height = picture.size
        pixels = np.asarray(picture.convert("RGB"))
    assert (width, height > width) == (1800, True)
    # A panel in each of the four rows, left and right: more than white.
    for row in range(4):
        for column in range(2):
            top = 240 + row * (height - 240) // 4
            part = pixels[top : top + (height - 240) // 4, column * 900 : (column + 1) * 900]
            assert (part < 200).any(axis=2).mean() > 0.01, (row, column)


def test_a_picture_of_a_study_without_results_says_so(service: Service, hpo: Command, tmp_path: Path) -> None:
    _study(service, 0)
    assert hpo(service, "report", "demo", "-o", tmp_path / "new" / "report.png").code == 0
    with Image.open(tmp_path / "new" / "report.png") as picture:
        assert picture.size[0] == 1800


def test_a_report_names_the_failures_and_what_was_stopped(
    past_service: Service, report: Callable[[Service], Page]
) -> None:
    page = report(past_service)
    _assert_whole(page)
    assert "1 trial failed: 1 oom." in page.text["failures"]
    assert "CUDA out of memory" in page.text["failures"]
    counts = re.findall(r"(\d+) (\w+)", page.text["study"].partition("Trials: ")[2].partition(".")[0])
    with past_service.http("read") as http:
        expected = http.get("/v1/studies/demo").json()["trial_counts"]
    assert {state: int(count) for count, state in counts} == expected
    assert "Stopped early: 2 trials, which saved about" in page.text["study"]
    assert "end with val_loss <= 0.9" in page.text["checks"]


def test_text_of_a_study_cannot_become_part_of_the_page(
    service: Service, report: Callable[[Service], Page], hpo: Command, tmp_path: Path
) -> None:
    service.suggest(service.create(), 1)
    with service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
        message = "</script><script src='http://x'></script> <b>"
        body = {**finished(lease, 0.0), "outcome": "failed", "failure_kind": "error", "failure_message": message}
        del body["metrics"]
        http.post(f"/v1/trials/{lease['trial_id']}/finish", json=body).raise_for_status()
    page = report(service)
    _assert_whole(page)
    assert message in page.text["failures"]
    file = tmp_path / "report.md"
    assert hpo(service, "report", "demo", "-o", file).out == f"wrote {file}\n"
    markdown = file.read_text()
    assert r"\</script\>\<script src='http://x'\>\</script\> \<b\>" in markdown, "it is text there too"


def test_a_report_is_markdown_too(service: Service, hpo: Command, tmp_path: Path) -> None:
    _study(service, 12)
    file = tmp_path / "report.md"
    hpo(service, "report", "demo", "-o", file)
    text = file.read_text()
    assert re.findall("^## (.*)$", text, re.MULTILINE)[:2] == ["The study", "The answer"]
    assert "| parameter | share of val\\_top1 | 90 % interval |\n| --- | --- | --- |\n| lr | " in text
    assert "`hpo export demo -o best.yaml` writes the best configuration" in text
    (written,) = re.findall("### The spec\n\n```\n(.*?)```", text, re.DOTALL)
    with service.http("read") as http:
        assert stored_spec(yaml.safe_load(written)) == stored_spec(http.get("/v1/studies/demo").json()["spec"])
    other = hpo(service, "report", "demo", "-o", tmp_path / "report.pdf")
    assert (other.code, "let the name end in .html, .md or .png" in " ".join(other.err.split())) == (1, True)


def test_importance_is_a_table_and_json(service: Service, hpo: Command) -> None:
    _study(service, 12)
    found = hpo(service, "importance", "demo", "--json").json["val_top1"]
    assert {row["parameter"] for row in found} == set(SPACE)
    assert found[0]["parameter"] == "lr"
    assert (found[0]["trend"], found[0]["at"]) == ("falls", None)
    assert sum(row["share"] for row in found) == pytest.approx(1)
    assert all(0 <= row["low"] <= row["share"] <= row["high"] <= 1 for row in found)
    said = hpo(service, "importance", "demo").out
    first = next(line for line in said.splitlines() if line.startswith("│"))
    assert [cell.strip() for cell in first.strip("│").split("│")] == [
        "lr",
        f"{found[0]['share']:.0%}",
        f"{100 * found[0]['low']:.0f} to {found[0]['high']:.0%}",
        "val_top1 falls with it",
    ]


def test_what_the_optimizer_has_computed_is_shown_with_the_study(service: Service, hpo: Command) -> None:
    study_id = service.create(optimizer={"name": "ax"})
    assert hpo(service, "study", "show", "demo", "--json").json["importance"] is None
    rows = [{"parameter": "lr", "share": 0.8, "low": 0.6, "high": 0.9, "trend": "highest at", "at": 0.01}]
    for outcomes, explained in ((10, {}), (20, {"val_top1": 0.04})):
        importances = {"val_top1": rows}
        message = f"{outcomes}: lr 80%"
        detail = {"outcomes": outcomes, "message": message, "explained": explained, "importances": importances}
        with service.database.transaction() as connection:
            events.append(connection, study_id, None, IMPORTANCE, "optimizer", detail)
    assert hpo(service, "study", "show", "demo", "--json").json["importance"] == detail
    assert "20: lr 80%" in hpo(service, "study", "show", "demo").out.splitlines()
    with service.http("read") as http:
        page = http.get("/studies/demo", headers={"Accept": "text/html"}).text
        assert page.index("The model explains next to nothing of val_top1 yet.") < page.index("(60 to 90%)")
    (view,) = DatabaseSource(service.database).studies()
    assert view.user_attrs["importance"] == "20: lr 80%"


def test_where_all_trials_end_alike_nothing_matters(service: Service, hpo: Command, tmp_path: Path) -> None:
    _study(service, 6, is_same=True)
    said = hpo(service, "importance", "demo")
    first, last = said.out.splitlines()
    assert (first, last.startswith("by a model of 6 trials")) == ("val_top1 is the same in all trials.", True)
    assert {row["share"] for row in hpo(service, "importance", "demo", "--json").json["val_top1"]} == {0.0}
    hpo(service, "report", "demo", "-o", tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    section = text.partition("## Which parameters matter")[2].partition("\n## ")[0]
    assert section.split("\n\n")[2].strip() == r"val\_top1 is the same in all trials."


def test_importance_of_a_study_without_results_is_one_sentence(service: Service, hpo: Command) -> None:
    _study(service, 0)
    said = hpo(service, "importance", "demo")
    assert (said.code, said.out) == (4, "")
    assert said.err == "error: study demo: 0 trials have an outcome; a model needs at least 5\n"
    assert hpo(service, "report", "missing").code == 3
