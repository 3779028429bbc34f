"""Where `hpo serve` listens: not beyond this machine without TLS, and by which names it may be called."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.auth.gate import is_own
from hpo.cli import serve
from hpo.cli.app import app
from hpo.cli.listening import Listening
from hpo.errors import SetupError

TLS = Path(__file__).resolve().parents[3] / "integration" / "api" / "tls"
CERTIFICATE: dict[str, Any] = {"certificate": TLS / "certificate.pem", "private_key": TLS / "key.pem"}
EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound here


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST."])
def test_this_machine_alone_needs_neither_tls_nor_a_word(host: str) -> None:
    assert not Listening(host=host).is_open


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "10.0.0.5", "gpu-host-7", "localhost.example.org"])
def test_beyond_this_machine_it_needs_tls_or_a_word(host: str) -> None:
    with pytest.raises(SetupError, match=r"everybody on the way can read the tokens.*--tls-cert.*--insecure"):
        Listening(host=host)
    assert Listening(host=host, insecure=True).is_open
    assert not Listening(host=host, **CERTIFICATE).is_open


def test_the_command_refuses_before_it_starts_anything(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--home", str(tmp_path / "home"), "serve", "--host", EVERYWHERE])
    assert isinstance(result.exception, SetupError)
    assert not (tmp_path / "home").exists()


def test_listening_without_tls_on_purpose_is_said_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serve, "_serve", lambda *_, **__: None)
    monkeypatch.setattr(serve, "log_to_stderr", lambda: None)
    for arguments in (["--host", EVERYWHERE, "--insecure"], []):
        CliRunner().invoke(app, ["--home", str(tmp_path), "serve", *arguments], catch_exceptions=False)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"without TLS: everybody between a client and {EVERYWHERE} can read the tokens"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"certificate": CERTIFICATE["certificate"]}, "both --tls-cert and --tls-key"),
        ({"private_key": CERTIFICATE["private_key"]}, "both --tls-cert and --tls-key"),
        ({**CERTIFICATE, "private_key": TLS / "nothing"}, "cannot be used .No such file"),
        ({**CERTIFICATE, "private_key": CERTIFICATE["certificate"]}, "cannot be used"),
        ({"public_url": "hpo.example.org"}, "--public-url 'hpo.example.org' is not an address"),
        ({"public_url": "http://["}, "is not an address"),
    ],
)
def test_a_mistake_is_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        Listening(**options)


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"host": "::1"}, "http://[::1]:8000"),
        ({"host": EVERYWHERE, "insecure": True}, f"http://{socket.gethostname()}:8000"),
        ({"host": "::", "insecure": True}, f"http://{socket.gethostname()}:8000"),
        ({"public_url": "https://hpo.example.org"}, "http://127.0.0.1:8000"),
        (CERTIFICATE, "https://127.0.0.1:8000"),
        ({**CERTIFICATE, "public_url": "https://hpo.example.org:8000/"}, "https://hpo.example.org:8000"),
    ],
)
def test_clients_of_this_machine_find_it_where_it_listens_or_where_its_certificate_is_right(
    options: dict[str, Any], url: str
) -> None:
    assert Listening(**options).url(8000) == url


NAMES = Listening(
    host="10.0.0.5", insecure=True, public_url="https://HPO.example.org/", allowed_hosts=["Service"]
).names


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000",
        "[::1]:8000",
        "10.9.8.7",
        "localhost:1",
        "LOCALHOST",
        "localhost.:8000",
        "hpo.example.org",
        "service:8000",
        f"{socket.gethostname()}:8000",
    ],
)
def test_the_service_is_called_by_an_ip_address_or_a_name_of_its_own(host: str) -> None:
    assert is_own(host, NAMES)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil-localhost",
        "evil.localhost:8000",
        "hpo.example.org.evil",
        "127.0.0.1@evil.example",
        "2130706433.example",
        "",
        "[",
        "[::1",
        "a b",
    ],
)
def test_other_names_are_not_its_own(host: str) -> None:
    assert not is_own(host, NAMES)


def test_headers_of_proxies_are_believed_only_from_those_that_were_named() -> None:
    assert Listening().uvicorn_options()["proxy_headers"] is False
    trusting = Listening(trusted_proxies=["127.0.0.1"]).uvicorn_options()
    assert (trusting["proxy_headers"], trusting["forwarded_allow_ips"]) == (True, ["127.0.0.1"])
