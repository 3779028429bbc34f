"""An HTTP connection to the API that raises our errors where an address is wrong or nothing answers."""

from __future__ import annotations

from typing import Any

import httpx

from ..errors import SetupError, StoreUnavailableError


class UnreachableError(StoreUnavailableError):
    """Nothing answers at the address of the API.

    `reason` is what the network said.
    """

    def __init__(self, message: str | None = None, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class Connection:
    """The API at `url`, asked with `token`. Safe to use from several threads; close it at the end."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        timeout: httpx.Timeout | float,
        trust_env: bool = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Prepare the connection; nothing is sent yet.

        Args:
            timeout: seconds that connecting, writing and each read may take.
            trust_env: use the proxies that environment variables name.
            transport: answers in place of the network.

        Raises:
            SetupError: `url` is not an address.
        """
        self.url = url.rstrip("/")
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        try:
            self._http = httpx.Client(
                base_url=self.url, headers=headers, timeout=timeout, trust_env=trust_env, transport=transport
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise self._wrong_address() from error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send a request and return the answer, whatever its status.

        Args:
            request: `json`, `content`, `params` or `headers`, as for `httpx.Client.request`.

        Raises:
            SetupError: the address cannot be that of an API.
            UnreachableError: nothing answers there.
        """
        try:
            return self._http.request(method, path, **request)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise self._wrong_address() from error
        except httpx.TransportError as error:
            timed_out = isinstance(error, httpx.TimeoutException)
            raise UnreachableError(
                f"{self.url} did not answer in time; try again shortly"
                if timed_out
                else f"nothing answers at {self.url}; start it with `hpo serve`",
                reason=str(error) or type(error).__name__,
            ) from error

    def _wrong_address(self) -> SetupError:
        return SetupError(f"{self.url!r} is not the address of an API; write something like http://host:8000")
