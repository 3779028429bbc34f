"""Where `hpo serve` listens, and what it takes before it listens beyond this machine."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import SetupError

EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """How the API is reached. The defaults are those of one person on one machine."""

    host: str = "127.0.0.1"
    certificate: Path | None = None
    """PEM file of the certificate, with those of its issuers."""
    private_key: Path | None = None
    insecure: bool = False
    """Whether it may listen beyond this machine without TLS."""
    public_url: str | None = None
    """The address that people use, where it is another: that of a proxy."""
    allowed_hosts: Sequence[str] = ()
    """Further names of this service."""
    trusted_proxies: Sequence[str] = ()
    """Addresses whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise SetupError("TLS needs both --tls-cert and --tls-key")
        if self.public_url is not None:
            _host_of(self.public_url)
        self._check_certificate()
        if self.is_open and not self.insecure:
            raise SetupError(
                f"--host {self.host} is reached from other machines, and without TLS everybody on the way can read the "
                "tokens: give --tls-cert and --tls-key, or listen on 127.0.0.1 behind a proxy with TLS "
                "(docs/security.md), or say --insecure for a network that you trust"
            )

    @property
    def is_open(self) -> bool:
        """Whether tokens pass a network in the clear."""
        from ..client.connection import is_loopback

        return self.certificate is None and not is_loopback(self.host)

    @property
    def names(self) -> frozenset[str]:
        """The names by which browsers and clients may call the service; they may always use its IP address."""
        from ..client.connection import is_loopback

        own = [] if is_loopback(self.host) else [socket.gethostname()]
        public = [] if self.public_url is None else [_host_of(self.public_url)]
        return frozenset(name.lower() for name in (self.host, *own, *public, *self.allowed_hosts))

    def url(self, port: int) -> str:
        """Return the address for clients on this machine: where it listens, or that of its certificate."""
        if self.certificate is not None and self.public_url is not None:
            return self.public_url.rstrip("/")
        host = socket.gethostname() if self.host in EVERY_ADDRESS else self.host
        scheme = "http" if self.certificate is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def to_json(self) -> dict[str, Any]:
        """Return this for another process."""
        return {
            **asdict(self),
            "certificate": None if self.certificate is None else str(self.certificate.absolute()),
            "private_key": None if self.private_key is None else str(self.private_key.absolute()),
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Listening:
        """Return what `to_json` was made of."""
        paths = {name: None if told[name] is None else Path(told[name]) for name in ("certificate", "private_key")}
        return cls(**{**told, **paths})

    def uvicorn_options(self) -> dict[str, Any]:
        """Return what the server must know. Headers of proxies are believed only from those that were named."""
        return {
            # It refuses a head of more than 16 KiB; httptools, which uvicorn prefers where it is installed, takes one
            # of any length, also from a stranger.
            "http": "h11",
            "proxy_headers": bool(self.trusted_proxies),
            "forwarded_allow_ips": list(self.trusted_proxies),
            "ssl_certfile": self.certificate,
            "ssl_keyfile": self.private_key,
        }

    def _check_certificate(self) -> None:
        if self.certificate is None:
            return
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.private_key)
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror if not isinstance(error, ssl.SSLError) and error.strerror else str(error)
            raise SetupError(
                f"the certificate {self.certificate} with the key {self.private_key} cannot be used ({reason})"
            ) from error


def _host_of(url: str) -> str:
    try:
        found = urlsplit(url)
        host = found.hostname
    except ValueError:
        host = None
    if not host or found.scheme not in ("http", "https"):
        raise SetupError(f"--public-url {url!r} is not an address; write something like https://hpo.example.org")
    return host
