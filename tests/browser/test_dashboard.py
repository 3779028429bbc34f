"""What a person sees: the login page, the list of studies, a study with its curves."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.auth import create_login_link
from hpo.store import Database
from tests.integration.api.history import make_history
from tests.integration.api.service import KEY, Service, serving

from .chromium import Page, browsing, find_chromium


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
def shots(tmp_path: Path) -> Path:
    """Where screenshots go: `HPO_SCREENSHOTS`, for looking at them, else a temporary folder."""
    folder = Path(os.environ.get("HPO_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _colours(png: bytes) -> int:
    """Return the number of distinct values in the picture's bytes: a blank page has a handful."""
    data, place = b"", 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            data += png[place + 8 : place + 8 + length]
        place += length + 12
    return len(set(zlib.decompress(data)))


def test_the_dashboard_as_a_person_sees_it(chromium: str, service: Service, shots: Path, tmp_path: Path) -> None:
    with browsing(chromium, tmp_path / "profile") as page:
        _login_page(page, service, shots)
        page.open(create_login_link(service.database, KEY, service.url, token=service.tokens["admin"]))
        page.wait_for("location.pathname === '/'")
        page.open(f"{service.url}/dashboard")
        page.wait_for("location.pathname === '/dashboard' && document.body.innerText.includes('demo')")
        page.screenshot(shots / "studies.png")
        page.problems.clear()
        study = page.evaluate("fetch('/api/studies').then(r => r.json()).then(s => s.study_summaries[0].study_id)")
        page.open(f"{service.url}/dashboard/studies/{study}")
        # Plots are drawn by plotly into elements of this class; the curves are one of them.
        page.wait_for("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 3")
        page.wait_for("document.body.innerText.includes('val_top1')")
        assert _colours(page.screenshot(shots / "study.png")) > 100
        page.open(f"{service.url}/dashboard/studies/{study}/analytics")
        page.wait_for("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 3")
        page.screenshot(shots / "analytics.png")
        page.open(f"{service.url}/dashboard/studies/{study}/trials")
        page.wait_for("document.body.innerText.includes('Trial 0')")
        page.screenshot(shots / "trials.png")
        assert page.problems == [], "the console has no errors: the security headers let the dashboard work"


def _login_page(page: Page, service: Service, shots: Path) -> None:
    page.open(f"{service.url}/dashboard")
    page.wait_for("document.querySelector('form[action=\"/login\"]') !== null")
    page.screenshot(shots / "login.png")
    page.evaluate("document.querySelector('#token').value = 'wrong'; document.forms[0].submit()")
    page.wait_for("document.body.innerText.includes('not known')")
    page.evaluate(f"document.querySelector('#token').value = {service.tokens['read']!r}; document.forms[0].submit()")
    page.wait_for("location.pathname === '/' && document.body.innerText.includes('demo')")
    assert not page.evaluate("document.cookie.includes('hpo_session')"), "scripts cannot read the session"
    page.send("Network.clearBrowserCookies")
