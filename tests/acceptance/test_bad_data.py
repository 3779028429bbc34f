"""Broken videos are named and left out; a data set that is not there does not burn the budget."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .conftest import Service, tiny_spec, wait_for


@pytest.fixture
def damaged(tiny_videos: Path, tmp_path: Path) -> Path:
    """The tiny set with an empty file, a torn one and a missing one."""
    root = tmp_path / "damaged"
    shutil.copytree(tiny_videos, root)
    folder = root / "videos" / "SlideLeft"
    (folder / "v_SlideLeft_g03_c01.avi").write_bytes(b"")
    torn = folder / "v_SlideLeft_g03_c02.avi"
    torn.write_bytes(torn.read_bytes()[:300])
    (folder / "v_SlideLeft_g03_c03.avi").unlink()
    return root


def test_broken_videos_are_named_and_the_study_completes(service: Service, damaged: Path) -> None:
    checked = service.run("hpo", "data", "check", damaged, check=False)
    assert checked.returncode == 1
    for number in (1, 2, 3):
        assert f"v_SlideLeft_g03_c0{number}" in checked.stdout
    spec = tiny_spec(damaged, "damaged", budget={"trials": 1})
    with service.client() as client, service.worker("--study", "damaged"):
        client.create_study(spec)
        wait_for(lambda: client.study("damaged")["state"] == "completed")
        (trial,) = client.trials("damaged")
    assert trial["state"] == "completed"
    logs = "".join(log.read_text() for log in service.home.glob("worker-*.log"))
    assert "3 videos are left out" in logs


def test_a_missing_data_set_pauses_the_study_and_fails_no_trial(service: Service, tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path / "nowhere", "typo", budget={"trials": 20})
    with service.client() as client, service.worker("--study", "typo"):
        client.create_study(spec)
        study = wait_for(lambda: s if (s := client.study("typo"))["state"] == "paused" else None)
        failed = client.trials("typo", states=["failed"])
    assert failed == []
    assert str(tmp_path / "nowhere") in str(study["state_reason"])
