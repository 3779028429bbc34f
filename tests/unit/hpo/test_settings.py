"""Where the data directory is when nobody names one."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.settings import Settings


@pytest.mark.parametrize(
    ("environment", "user", "home"),
    [
        ({"HPO_HOME": "/data/hpo", "XDG_DATA_HOME": "/xdg"}, 0, "/data/hpo"),
        ({"XDG_DATA_HOME": "/xdg"}, 1000, "/xdg/video-hpo"),
        ({"XDG_DATA_HOME": "/xdg"}, 0, "/var/lib/video-hpo"),
        ({}, 1000, "/home/person/.local/share/video-hpo"),
    ],
)
def test_the_data_directory(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], user: int, home: str) -> None:
    for name in ("HPO_HOME", "XDG_DATA_HOME", "HPO_URL", "HPO_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/person", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("hpo.settings.os.geteuid", lambda: user)
    assert Settings.load(home=None, url=None, token_file=None).home == Path(home)
