"""An HTTP connection to the API that raises our errors where an address is wrong or nothing answers."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from ..errors import SetupError
from .identity import AsyncChallenge, Challenge
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
        with _our_errors(self.url):
            options = _options(self.url, token, trust_env=trust_env, ca_file=ca_file)
            self._make = partial(httpx.Client, **options, timeout=timeout, transport=transport)
            self._made, self._made_in = self._make(), os.getpid()
        reads = httpx.Timeout(timeout).read
        challenge = None if server_file is None or token is None else Challenge(self.url, server_file, seconds=reads)
        self._extensions = {} if challenge is None else {"trace": challenge}

    @property
    def _http(self) -> httpx.Client:
        """The connections of this process. Those from before a fork are its parent's, whose answers come there too."""
        if self._made_in != (here := os.getpid()):
            if not self._made.is_closed:
                self._made = self._make()
            self._made_in = here
        return self._made

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._http.is_closed

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
        with _our_errors(self.url, method):
            return self._http.request(method, path, extensions=self._extensions, **request)

    def errors(self) -> AbstractContextManager[None]:
        """Raise what the network does in the block as the errors of `send`."""
        return _our_errors(self.url)

    @contextmanager
    def stream(self, method: str, path: str, **request: Any) -> Iterator[httpx.Response]:
        """Send a request and yield the answer, whose body is read in the block. Opening raises what `send` raises."""
        with _our_errors(self.url), self._http.stream(method, path, extensions=self._extensions, **request) as answer:
            yield answer


class AsyncConnection:
    """The same for asyncio."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        timeout: httpx.Timeout | float,
        trust_env: bool = True,
        server_file: Path | None = None,
        ca_file: Path | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare the connection, as for `Connection`."""
        self.url = url.rstrip("/")
        with _our_errors(self.url):
            options = _options(self.url, token, trust_env=trust_env, ca_file=ca_file)
            self._http = httpx.AsyncClient(**options, timeout=timeout, transport=transport)
        reads = httpx.Timeout(timeout).read
        challenge = (
            None if server_file is None or token is None else AsyncChallenge(self.url, server_file, seconds=reads)
        )
        self._extensions = {} if challenge is None else {"trace": challenge}

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._http.is_closed

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send a request and return the answer, as `Connection.send` does."""
        with _our_errors(self.url, method):
            return await self._http.request(method, path, extensions=self._extensions, **request)

    def errors(self) -> AbstractContextManager[None]:
        """Raise what the network does in the block as the errors of `send`."""
        return _our_errors(self.url)

    @asynccontextmanager
    async def stream(self, method: str, path: str, **request: Any) -> AsyncIterator[httpx.Response]:
        """Send a request and yield the answer, as `Connection.stream` does."""
        with _our_errors(self.url):
            async with self._http.stream(method, path, extensions=self._extensions, **request) as answer:
                yield answer


def _options(url: str, token: str | None, *, trust_env: bool, ca_file: Path | None) -> dict[str, Any]:
    return {
        "base_url": url,
        "headers": {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {}),
        "trust_env": trust_env and not is_this_machine(httpx.URL(url).host),
        "verify": True if ca_file is None else _trusting(ca_file),
    }


@contextmanager
def _our_errors(url: str, method: str = "GET") -> Iterator[None]:
    """Raise errors of addresses and networks as ours."""
    try:
        yield
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, UnicodeError) as error:
        raise SetupError(f"{url!r} is not the address of an API; write something like http://host:8000") from error
    except httpx.TransportError as error:
        if (untrusted := _certificate_error(error)) is not None:
            raise SetupError(
                f"the certificate of {url} is not trusted ({untrusted.verify_message}): if it is the right one, name "
                "it or its issuer's in HPO_CA_FILE"
            ) from error
        timed_out = isinstance(error, httpx.TimeoutException)
        only_reads = method == "GET" or isinstance(error, httpx.ConnectTimeout)
        after = "try again shortly" if only_reads else "it may have done what it was asked: look before you ask again"
        raise UnreachableError(
            f"{url} did not answer in time; {after}"
            if timed_out
            else f"nothing answers at {url}; start it with `hpo serve`",
            reason=str(error) or type(error).__name__,
        ) from error


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
