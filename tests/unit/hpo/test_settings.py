"""Where the data directory and the folders of weights are when nobody names them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from hpo.errors import SetupError
from hpo.settings import Settings, is_of_stranger, read_server_file


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


def test_folders_of_weights_are_those_given_else_of_the_environment_else_in_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HPO_WEIGHTS_ROOTS", raising=False)
    assert Settings.load(home=tmp_path).weights_roots == (tmp_path / "weights",)
    monkeypatch.setenv("HPO_WEIGHTS_ROOTS", f"/data/a{os.pathsep}{os.pathsep}/data/b")
    assert Settings.load(home=tmp_path).weights_roots == (Path("/data/a"), Path("/data/b"))
    monkeypatch.chdir(tmp_path)
    assert Settings.load(home=tmp_path, weights_roots=[Path("mine")]).weights_roots == (tmp_path / "mine",)


VARIABLES = ("HPO_URL", "HPO_TOKEN", "HPO_CA_FILE", "DATABASE_URL", "DATABASE_PASSWORD_FILE")
SERVED = {"url": "http://127.0.0.1:1234", "key": "k", "certificate": "/c.pem"}


@pytest.mark.parametrize("served", [SERVED, None])
@pytest.mark.parametrize(
    ("given", "proves"),
    [({}, True), ({"HPO_URL": "http://127.0.0.1:9"}, False), ({"HPO_TOKEN": "hpo_x"}, None)],
)
def test_an_address_that_nobody_named_must_prove_itself(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    served: dict[str, str] | None,
    given: dict[str, str],
    proves: bool | None,
) -> None:
    """A token that was given, and no address, may be meant for a tunnel at the usual port."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "token").write_text("hpo_kept\n")
    if served is not None:
        (tmp_path / "server.json").write_text(json.dumps(served))
    settings = Settings.load(home=tmp_path)
    assert settings.api_url == given.get("HPO_URL", served["url"] if served else "http://127.0.0.1:8000")
    assert settings.token == given.get("HPO_TOKEN", "hpo_kept")
    expected = proves if proves is not None else served is not None
    assert settings.proving_file == (tmp_path / "server.json" if expected else None)
    is_ours = served is not None and "HPO_URL" not in given
    assert settings.ca_file == (Path("/c.pem") if is_ours else None)


@pytest.mark.parametrize(("uid", "is_stranger"), [(0, False), (os.geteuid(), False), (os.geteuid() + 7, True)])
def test_a_file_of_another_user_is_a_strangers_unless_the_folder_is_theirs_too(
    tmp_path: Path, uid: int, is_stranger: bool
) -> None:
    found = os.stat_result((0o100600, 0, 0, 1, uid, 0, 0, 0, 0, 0))
    assert is_of_stranger(found, tmp_path) is is_stranger


@pytest.mark.parametrize("how", ["everybody may write it", "a stranger wrote it"])
def test_an_address_that_another_user_may_have_written_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    file = tmp_path / "server.json"
    file.write_text(json.dumps(SERVED))
    found = read_server_file(file)
    assert found is not None
    assert found.url == SERVED["url"]
    if how == "everybody may write it":
        file.chmod(0o602)
    else:
        monkeypatch.setattr("hpo.settings.is_of_stranger", lambda _, home: bool(home == tmp_path))
    match = r"server\.json where the service is, and would be sent your token: remove"
    with pytest.raises(SetupError, match=match):
        read_server_file(file)
    monkeypatch.delenv("HPO_URL", raising=False)
    with pytest.raises(SetupError, match=match):
        Settings.load(home=tmp_path)
    assert Settings.load(home=tmp_path, url="http://127.0.0.1:9").api_url == "http://127.0.0.1:9", "it is not asked"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://hpo@db/hpo", "postgresql://hpo:p%40ss%2Fw%20d@db/hpo"),
        ("postgresql+psycopg2://hpo@[::1]:5432/hpo?sslmode=require", None),
        ("postgresql://hpo:own@db/hpo", "postgresql://hpo:own@db/hpo"),
    ],
)
def test_the_password_of_the_database_may_be_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, expected: str | None
) -> None:
    (tmp_path / "password").write_text("p@ss/w d\n")
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("DATABASE_PASSWORD_FILE", str(tmp_path / "password"))
    found = Settings.load(home=tmp_path).database_url
    assert found is not None
    assert found == (expected or url.replace("hpo@", "hpo:p%40ss%2Fw%20d@"))
    assert make_url(found).password == ("own" if ":own@" in url else "p@ss/w d")
    monkeypatch.setenv("DATABASE_PASSWORD_FILE", str(tmp_path / "nothing"))
    if ":own@" not in url:
        with pytest.raises(SetupError, match="check DATABASE_PASSWORD_FILE"):
            Settings.load(home=tmp_path)
