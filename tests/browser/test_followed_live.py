"""A study that a worker trains, followed on its open page from the first trial to the last, across a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.auth import create_login_link
from hpo.store import Database, answers, studies
from tests.integration.api.service import KEY, serving
from tests.integration.workers.bench import GOOD, Bench, running
from tests.unit.workers.tiny import make_videos

from .chromium import browsing, find_chromium

TRIALS, EPOCHS = 2, 24


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_is_followed_from_its_first_trial_to_its_last(database: Database, tmp_path: Path) -> None:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    videos = make_videos(tmp_path / "videos")
    with browsing(chromium, tmp_path / "profile") as page:
        with serving(database, upkeep_seconds=0.2) as service:
            bench = Bench(
                database=database,
                url=service.url,
                token=service.tokens["worker"],
                home=tmp_path / "home",
                videos=videos,
            )
            points = [{**GOOD, "lr": 0.01 * (place + 1)} for place in range(TRIALS)]
            study_id = bench.study("demo", points, task={"epochs": EPOCHS})
            page.open(create_login_link(database, KEY, service.url, token=service.tokens["admin"]))
            page.wait_for("location.pathname === '/'")
            page.open(f"{service.url}/studies/demo")
            page.wait_for("document.querySelector('#banners').innerText.includes('No worker is connected')")
            page.evaluate("window.isTheSame = true")
            page.problems.clear()
            with running(bench):
                bench.worker()
                page.wait_for("!document.querySelector('#banners').innerText.includes('No worker is connected')")
                page.wait_for("document.querySelector('#running tbody tr') !== null", seconds=120)
                page.wait_for("JSON.parse(document.querySelector('#curves-data').textContent).groups.top1")
                page.wait_for("document.querySelector('#leaders tbody tr') !== null", seconds=120)
                assert page.problems == []
        # The server is gone, in the middle of the study; the worker has ended with its block.
        page.wait_for("!document.querySelector('#away').hidden", seconds=30)
        port = int(service.url.rsplit(":", 1)[1])
        with serving(database, port=port, upkeep_seconds=0.2) as service:
            page.wait_for("document.querySelector('#away').hidden", seconds=60)
            bench.token = service.tokens["worker"]
            with running(bench):
                bench.expire_leases()
                bench.worker()
                page.wait_for("document.querySelector('#head .badge').innerText === 'completed'", seconds=200)
            with database.transaction() as connection:
                study = studies.get_by_id(connection, study_id)
                answer = answers.read(connection, study)
            assert answer is not None
            shown = f"{answer.winner.first.believed:.4g}"
            page.wait_for(f"document.querySelector('#tiles').innerText.includes('{shown}')")
            page.wait_for(f"document.querySelector('#tiles').innerText.includes('{TRIALS} of {TRIALS}')")
            numbers = "JSON.stringify(JSON.parse(document.querySelector('#progress-data').textContent).numbers)"
            page.wait_for(f"{numbers} === '{list(range(TRIALS))}'.replaceAll(' ', '')")
            assert page.evaluate("window.isTheSame"), "it was never loaded anew"
