"""An HTTP connection to the API that raises our errors where an address is wrong or nothing answers."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Any

import httpx

from ..errors import SetupError
from .identity import Challenge
from .problems import UnreachableError


class Connection:
    """The API at `url`, asked with `token`. Safe to use from several threads; close it at the end."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        timeout: httpx.Timeout | float,
        trust_env: bool = True,
        server_file: Path | None = None,
        ca_file: Path | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Prepare the connection; nothing is sent yet.

        Args:
            timeout: seconds that connecting, writing and each read may take.
            trust_env: use the proxies that environment variables name; never for this machine itself, since a proxy
                would see the token.
            server_file: `server.json` of the data directory that the token is from: the token is sent only to a
                program that proves to be the service that wrote it.
            ca_file: certificates to trust besides the usual ones.
            transport: answers in place of the network.

        Raises:
            SetupError: `url` is not an address, or `ca_file` holds no certificates.
        """
        self.url = url.rstrip("/")
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        try:
            self._http = httpx.Client(
                base_url=self.url,
                headers=headers,
                timeout=timeout,
                trust_env=trust_env and not is_this_machine(httpx.URL(self.url).host),
                verify=True if ca_file is None else _trusting(ca_file),
                transport=transport,
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise self._wrong_address() from error

        challenge = None if server_file is None or token is None else Challenge(self.url, server_file)
        self._extensions = {} if challenge is None else {"trace": challenge}

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send a request and return the answer, whatever its status.

        Args:
            request: `json`, `content`, `params` or `headers`, as for `httpx.Client.request`.

        Raises:
            SetupError: the address cannot be that of an API, or its certificate is not trusted.
            UnreachableError: nothing answers there, or another program than the service that the token is for.
        """
        try:
            return self._http.request(method, path, extensions=self._extensions, **request)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise self._wrong_address() from error
        except httpx.TransportError as error:
            if (untrusted := _certificate_error(error)) is not None:
                raise SetupError(
                    f"the certificate of {self.url} is not trusted ({untrusted.verify_message}): if it is the right "
                    "one, name it or its issuer's in HPO_CA_FILE"
                ) from error
            timed_out = isinstance(error, httpx.TimeoutException)
            raise UnreachableError(
                f"{self.url} did not answer in time; try again shortly"
                if timed_out
                else f"nothing answers at {self.url}; start it with `hpo serve`",
                reason=str(error) or type(error).__name__,
            ) from error

    def _wrong_address(self) -> SetupError:
        return SetupError(f"{self.url!r} is not the address of an API; write something like http://host:8000")


def is_loopback(host: str) -> bool:
    """Return whether a host of an address is this machine and no other can reach it there, as its text says."""
    if host.rstrip(".").lower() == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def is_this_machine(host: str) -> bool:
    """Return whether a host of an address is this machine, also where others reach it: by its name, or `0.0.0.0`."""
    name, address = host.rstrip(".").lower(), _address(host)
    if is_loopback(host) or name.endswith(".localhost") or name == socket.gethostname().lower():
        return True
    return address is not None and address.is_unspecified


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address as the system reads it, which takes `127.1` and `0x7f000001` too; None for a name."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, UnicodeError):
            return None
    return getattr(found, "ipv4_mapped", None) or found


def _trusting(ca_file: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SetupError(f"the certificates in {ca_file} cannot be read ({error}): check HPO_CA_FILE") from error
    return context


def _certificate_error(error: BaseException) -> ssl.SSLCertVerificationError | None:
    found: BaseException | None = error
    while found is not None and not isinstance(found, ssl.SSLCertVerificationError):
        found = found.__cause__ or found.__context__
    return found
