"""`hpo token`, `hpo doctor` and `hpo db`: what belongs to the service and not to a study."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from hpo.cli import main
from hpo.store.database import make_engine

from ..api.service import Service
from .conftest import Command


def test_a_new_token_may_do_what_its_scope_says(service: Service, hpo: Command) -> None:
    made = hpo(service, "token", "create", "laptop", "--scope", "read").out.strip()
    assert "\n" not in made
    service.tokens["made"] = made
    assert hpo(service, "study", "list", scope="made").code == 0
    assert hpo(service, "token", "create", "another", scope="made").code == 5


def test_tokens_are_listed_and_revoked(service: Service, hpo: Command) -> None:
    for name in ("gpu-1", "twice", "twice"):
        hpo(service, "token", "create", name, "--expires-in-hours", "24")
    known = {token["name"]: token for token in hpo(service, "token", "list", "--json").json}
    assert known["gpu-1"]["last_used_at"] is None
    assert known["admin of the test"]["last_used_at"] is not None
    lifetime = _moment(known["gpu-1"]["expires_at"]) - _moment(known["gpu-1"]["created_at"])
    assert lifetime == pytest.approx(timedelta(hours=24), abs=timedelta(minutes=1))
    (line,) = [line for line in hpo(service, "token", "list").out.splitlines() if "gpu-1" in line]
    assert "worker" in line
    assert "never" in line
    assert f"valid until {_moment(known['gpu-1']['expires_at']):%Y-%m-%d %H:%M}" in line
    assert hpo(service, "token", "revoke", "gpu-1").out.endswith("(gpu-1) is not valid any more\n")
    assert any("gpu-1" in line and "revoked" in line for line in hpo(service, "token", "list").out.splitlines())
    again, ambiguous = (hpo(service, "token", "revoke", name) for name in ("gpu-1", "twice"))
    assert (again.code, "no valid token 'gpu-1'" in again.err) == (3, True)
    assert (ambiguous.code, "2 tokens are called 'twice'; give an id: " in ambiguous.err) == (4, True)
    assert hpo(service, "token", "revoke", str(known["twice"]["id"])).code == 0


def test_the_last_admin_token_is_not_revoked_by_accident(service: Service, hpo: Command) -> None:
    said = hpo(service, "token", "revoke", "admin of the test")
    assert (said.code, said.out) == (4, "")
    assert "hpo token create NAME --scope admin" in said.err
    hpo(service, "token", "create", "another", "--scope", "admin")
    assert hpo(service, "token", "revoke", "admin of the test").code == 0
    assert hpo(service, "token", "list").code == 5


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def test_an_unknown_scope_is_refused(service: Service, hpo: Command) -> None:
    said = hpo(service, "token", "create", "laptop", "--scope", "root")
    assert (said.code, said.out) == (2, "")
    assert "choose one of admin, worker, read" in said.err


def test_the_token_of_this_machine_is_shown(service: Service, hpo: Command) -> None:
    assert hpo(service, "token", "show").out == service.tokens["admin"] + "\n"


def test_the_error_for_a_missing_token_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HPO_TOKEN", raising=False)
    with pytest.raises(SystemExit, match="1"):
        main(["--home", str(tmp_path), "token", "show"])
    said = capsys.readouterr().err
    assert f"there is no token at {tmp_path / 'token'}" in said
    assert "`hpo serve`" in said


def test_a_wrong_token_is_exit_code_5(service: Service, hpo: Command) -> None:
    service.tokens["wrong"] = "nothing that the service knows"
    assert hpo(service, "study", "list", scope="wrong").code == 5


def test_a_ready_machine_has_no_findings(empty_service: Service, hpo: Command) -> None:
    said = hpo(empty_service, "doctor")
    assert said.code == 0
    lines = said.out.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    for about in ("python", "torch", "data dir", "service"):
        assert any(about in line for line in lines)
    assert f"{empty_service.url} answers: ok" in said.out


def test_without_a_service_the_doctor_says_so_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nothing listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SystemExit, match="1"):
            main(["--home", str(tmp_path), "--url", url, "doctor"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line[5:].startswith("service")]
    assert line.startswith("no ")
    assert url in line
    assert "`hpo serve`" in line


def test_the_schema_is_brought_up_to_date(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    for _ in range(2):
        with pytest.raises(SystemExit, match="0"):
            main(["--home", str(tmp_path / "new"), "db", "upgrade"])
        assert capsys.readouterr().out == "the schema is up to date\n"
    engine = make_engine(empty_database_url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM trial")).scalar_one() == 0
    engine.dispose()
    assert (tmp_path / "new").is_dir()


def test_a_database_that_is_away_is_exit_code_6(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(SystemExit, match="6"):
        main(["--home", str(tmp_path), "db", "upgrade"])
    assert capsys.readouterr().err.startswith("error: ")
