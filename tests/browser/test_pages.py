"""Our pages as a person sees them: no error in the console, nothing that axe-core finds, and news without a reload."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.auth import create_login_link
from hpo.protocol import Confusion
from hpo.store import Database, confusions, studies, trials
from hpo.trial import StudyState
from tests.integration.api.history import confusion, make_history
from tests.integration.api.service import KEY, Service, claim_body, measured, serving

from .chromium import Page, browsing, find_chromium

PATHS = (
    "/",
    "/studies/demo",
    "/studies/demo/trials/6",
    "/studies/demo/trials/4",
    "/data-sets",
    "/workers",
    "/new",
    "/studies/demo/edit",
    "/studies/demo/import",
    "/nothing",
    "/login",
)
WIDTHS = {"wide": 1400, "phone": 390}
AXE = gzip.decompress((Path(__file__).parent / "vendor/axe.min.js.gz").read_bytes()).decode()


_OVERFLOWS = """(menu => {
    menu.open = true;
    const box = menu.lastElementChild.getBoundingClientRect();
    menu.open = false;
    return box.width === 0 || box.left < 0 || box.right > document.documentElement.clientWidth;
})"""
"""Whether what a menu opens does not fit into the width of the window."""


@pytest.fixture(scope="module")
def chromium() -> str:
    """The browser; skips where there is none."""
    found = find_chromium()
    if found is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    return found


@pytest.fixture
def service(database: Database) -> Iterator[Service]:
    """A server with a study of ten trials."""
    with serving(database) as running:
        make_history(running)
        yield running


@pytest.fixture
def page(chromium: str, service: Service, tmp_path: Path) -> Iterator[Page]:
    """A browser that an administrator has logged in."""
    with browsing(chromium, tmp_path / "profile") as found:
        found.open(create_login_link(service.database, KEY, service.url, token=service.tokens["admin"]))
        found.wait_for("location.pathname === '/'")
        yield found


def _show(page: Page, *, width: int, is_dark: bool) -> None:
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
    page.send("Emulation.setEmulatedMedia", features=[scheme])


def _open(page: Page, service: Service, path: str) -> None:
    page.problems.clear()
    page.open(service.url + path)
    page.wait_for(f"location.pathname === {path!r} && document.readyState === 'complete'")
    page.wait_for("[...document.querySelectorAll('figure .plot')].every(box => box.childElementCount > 0)")


@pytest.mark.parametrize(("width", "is_dark"), [("wide", False), ("wide", True), ("phone", False)])
def test_every_page_is_whole(page: Page, service: Service, tmp_path: Path, width: str, is_dark: bool) -> None:
    shots = Path(os.environ.get("HPO_SCREENSHOTS", tmp_path))
    shots.mkdir(parents=True, exist_ok=True)
    _show(page, width=WIDTHS[width], is_dark=is_dark)
    for path in PATHS:
        _open(page, service, path)
        # That there is no such page is an error to the console, as it should be.
        assert len(page.problems) == (path == "/nothing"), (path, page.problems)
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width], (
            f"{path} is wider than the window"
        )
        assert (
            page.evaluate(f"[...document.querySelectorAll('details.menu')].filter({_OVERFLOWS}).map(m => m.id)") == []
        )
        page.screenshot(shots / f"{width}{'_dark' * is_dark}{path.replace('/', '_')}.png")
        page.evaluate(AXE + "; 1")
        found = page.evaluate("axe.run().then(r => JSON.stringify(r.violations.map(v => [v.id, v.nodes[0].html])))")
        assert json.loads(found) == [], path


def test_a_page_follows_what_happens(page: Page, service: Service) -> None:
    _open(page, service, "/studies/demo")
    page.evaluate("window.isTheSame = true; document.querySelector('#stop-menu').open = true")
    with service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body("another", study="demo")).raise_for_status().json()
        http.post(f"/v1/trials/{lease['trial_id']}/reports", json=measured(lease, 1, 0.4321)).raise_for_status()
    page.wait_for("document.querySelector('#running').innerText.includes('0.4321')")
    page.wait_for("document.querySelector('#curves-data').textContent.includes('trial 9')")
    with service.database.transaction() as connection:
        studies.set_state(connection, "demo", StudyState.PAUSED, actor="ann")
    page.wait_for("document.querySelector('#head .badge').innerText === 'paused'")
    page.wait_for("document.querySelector('#events').innerText.includes('the study was paused by ann')")
    assert page.evaluate("window.isTheSame && document.querySelector('#stop-menu').open"), "it was not loaded anew"
    assert page.problems == []


def test_a_confusion_matrix_can_be_pointed_at(page: Page, service: Service) -> None:
    for classes in (2, 12, 400):
        with service.database.transaction() as connection:
            trial = trials.get(connection, studies.id_of(connection, "demo"), 6)
            counts = Confusion.model_validate(confusion(9, classes))
            confusions.keep(connection, trial.id, counts, attempt=trial.attempt)
        _open(page, service, "/studies/demo/trials/6")
        page.wait_for(f"document.querySelectorAll('select[data-class] option').length === {classes}")
        # The last cell of the diagonal, in the middle of what is drawn: to the right and below it are 4 pixels.
        page.evaluate("""(() => {
            const canvas = document.querySelector('.matrix canvas'), box = canvas.getBoundingClientRect();
            const x = box.right - 5, y = box.bottom - 5;
            canvas.dispatchEvent(new MouseEvent('mousemove', {bubbles: true, clientX: x, clientY: y}));
        })()""")
        last = classes - 1
        assert page.evaluate("document.querySelector('.matrix .tip').innerText.split('\\n')") == [
            f"class Class{last}",
            "recognised",
            "5 of 8 (63%)",
        ]
        page.evaluate(
            f"(box => {{ box.value = '{last}'; box.dispatchEvent(new Event('change')); }})"
            "(document.querySelector('select[data-class]'))"
        )
        said = page.evaluate("document.querySelector('[data-of-class]').innerText")
        assert said == "5 of 8 (63%) right; 3 as Class0"
        assert "5 of 8 (63%)" in page.evaluate("document.querySelector('#confusion-box').innerText"), (
            "and so do the tables"
        )
        assert page.problems == []
    assert page.evaluate("document.querySelector('.matrix canvas').clientWidth") >= 2 * 400, "cells can be pointed at"


def test_a_confusion_matrix_appears_once_there_is_one(page: Page, service: Service) -> None:
    _open(page, service, "/studies/demo/trials/8")
    parts = "[...document.querySelectorAll('[data-of-matrix]')]"
    assert page.evaluate(f"{parts}.every(part => getComputedStyle(part).display === 'none')")
    with service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body("another", study="demo")).raise_for_status().json()
        number = lease["number"]
        _open(page, service, f"/studies/demo/trials/{number}")
        body = {**measured(lease, 1, 0.4321), "confusion": confusion(1, 5)}
        http.post(f"/v1/trials/{lease['trial_id']}/reports", json=body).raise_for_status()
    page.wait_for("document.querySelector('.matrix canvas') !== null")
    assert page.evaluate(f"{parts}.every(part => getComputedStyle(part).display !== 'none')")
    assert page.problems == []


def test_a_page_is_used_with_the_keyboard_alone(page: Page, service: Service) -> None:
    _open(page, service, "/studies/demo")
    assert _tab(page) == "Skip to the content"
    _press(page, "Enter", 13)
    assert page.evaluate("document.activeElement.id") == "content"
    for _ in range(40):
        if _tab(page) == "Pause":
            break
    assert page.evaluate("document.activeElement.matches(':focus-visible')")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "where one is can be seen"
    _press(page, "Enter", 13)
    page.wait_for("document.querySelector('#head .badge')?.innerText === 'paused'")
    for _ in range(40):
        if _tab(page) == "Stop…":
            break
    _press(page, " ", 32)
    assert page.evaluate("document.querySelector('#stop-menu').open")
    assert _tab(page) == "Stop the study"
    assert page.problems == []


def _tab(page: Page) -> str:
    """Return the text of what the key Tab leads to."""
    _press(page, "Tab", 9)
    return str(page.evaluate("document.activeElement.innerText.trim()"))


def _press(page: Page, key: str, code: int) -> None:
    text = {"Enter": "\r", " ": " "}.get(key)
    more = {} if text is None else {"text": text}
    page.send("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **more)
    page.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)


def test_buttons_work_in_a_browser(page: Page, service: Service) -> None:
    _open(page, service, "/studies/demo")
    page.evaluate("document.querySelector('form[action$=\"/pause\"] button').click()")
    page.wait_for("document.querySelector('#head .badge')?.innerText === 'paused'")
    with service.database.transaction() as connection:
        assert studies.get(connection, "demo").state is StudyState.PAUSED
    assert page.problems == []


def test_it_says_when_the_server_is_away(chromium: str, database: Database, tmp_path: Path) -> None:
    with browsing(chromium, tmp_path / "profile") as page:
        with serving(database) as service:
            page.open(create_login_link(service.database, KEY, service.url, token=service.tokens["admin"]))
            page.wait_for("location.pathname === '/' && document.readyState === 'complete'")
            assert page.evaluate("document.querySelector('#away').hidden")
        page.wait_for("!document.querySelector('#away').hidden")


def test_the_description_of_the_api_needs_no_internet(page: Page, service: Service) -> None:
    page.problems.clear()
    page.open(f"{service.url}/docs")
    page.wait_for("document.body.innerText.includes('studies') && document.querySelectorAll('.opblock-tag').length > 4")
    assert page.problems == []


def test_the_dashboard_shows_no_button_that_is_refused(page: Page, service: Service) -> None:
    page.problems.clear()
    page.open(f"{service.url}/dashboard")
    page.wait_for("document.body.innerText.includes('demo')")
    page.wait_for(
        "![...document.querySelectorAll('button')].some(b => b.offsetParent && /^create$/i.test(b.innerText))"
    )
    assert page.evaluate("document.querySelector('a.video-hpo').getAttribute('href')") == "/"
    with service.http() as http:
        http.patch("/v1/studies/demo", json={"note": "kept on our pages"}).raise_for_status()
    study = page.evaluate("fetch('/api/studies').then(r => r.json()).then(s => s.study_summaries[0].study_id)")
    page.open(f"{service.url}/dashboard/studies/{study}/note")
    page.wait_for("document.body.innerText.includes('kept on our pages')")
    page.wait_for("document.querySelector('[data-testid=EditIcon]')?.closest('button').offsetParent === null")
    assert page.problems == []


def test_the_answer_to_a_note_that_was_refused_follows_what_happens(page: Page, service: Service) -> None:
    _open(page, service, "/studies/demo")
    with service.http() as http:
        http.patch("/v1/studies/demo", json={"note": "of somebody else"}).raise_for_status()
    page.wait_for("document.querySelector('#note').innerText === 'of somebody else'")
    page.evaluate("document.querySelector('#note-text').value = 'mine'")
    page.evaluate("document.querySelector('form[action$=\"/note\"] button').click()")
    page.wait_for("document.querySelector('#note-problem')?.innerText.includes('Somebody has changed the note')")
    with service.database.transaction() as connection:
        studies.set_state(connection, "demo", StudyState.PAUSED, actor="ann")
    page.wait_for("document.querySelector('#head .badge').innerText === 'paused'")
    assert page.evaluate("document.querySelector('#note-text').value") == "mine"
    assert page.evaluate("document.querySelector('#away').hidden")


def _type(page: Page, id_: str, value: str) -> None:
    """Write into a field as a person does, who then stays in it."""
    change = f"one.focus(); one.value = {value!r}; one.dispatchEvent(new Event('input', {{bubbles: true}}))"
    page.evaluate(f"(one => {{ {change} }})(document.getElementById({id_!r}))")


def test_fields_and_text_of_a_new_study_follow_each_other(page: Page, service: Service) -> None:
    _open(page, service, "/new")
    _type(page, "field-trials", "many")
    page.wait_for("document.querySelector('#spec').value.includes('trials: many')")
    page.wait_for("document.querySelector('#field-trials-problem').innerText.includes('integer')")
    assert page.evaluate("document.activeElement.id + document.activeElement.getAttribute('aria-invalid')") == (
        "field-trialstrue"
    )
    _type(page, "field-trials", "7")
    page.wait_for("document.querySelector('#said').innerText.includes('Nothing is wrong')")
    page.evaluate("document.querySelector('#spec').value += 'finalists: {top: 4}\\n# mine\\n'")
    page.evaluate("document.querySelector('#spec').dispatchEvent(new Event('input', {bubbles: true}))")
    page.wait_for("document.querySelector('#field-finalists').value === '4'")
    _type(page, "field-stopping", "patient")
    page.wait_for("document.getElementById('field-early-stopping-patience') !== null")
    text = page.evaluate("document.querySelector('#spec').value")
    assert "trials: 7" in text
    assert "early_stopping: {name: patient}" in text
    assert text.endswith("finalists: {top: 4}\n# mine\n"), "what the fields do not know stays"
    page.evaluate("document.querySelector('button[name=create]').click()")
    page.wait_for("location.pathname === '/studies/my-study'")
    assert page.problems == []
