"""Our pages as a person sees them: no error in the console, nothing that axe-core finds, and news without a reload."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.auth import create_login_link
from hpo.store import Database, studies
from hpo.trial import StudyState
from tests.integration.api.history import make_history
from tests.integration.api.service import KEY, Service, claim_body, measured, serving

from .chromium import Page, browsing, find_chromium

PATHS = ("/", "/studies/demo", "/studies/demo/trials/6", "/studies/demo/trials/4", "/workers", "/new", "/login")
WIDTHS = {"wide": 1400, "phone": 390}
AXE = Path(os.environ.get("HPO_AXE", Path(__file__).resolve().parents[2] / "node_modules/axe-core/axe.min.js"))
"""axe-core is no part of this repository: `npm install axe-core` puts it there."""


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
        assert page.problems == [], path
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width], (
            f"{path} is wider than the window"
        )
        page.screenshot(shots / f"{width}{'_dark' * is_dark}{path.replace('/', '_')}.png")
        if AXE.exists():
            page.evaluate(AXE.read_text() + "; 1")
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
