"""Talk to the API as a person's program does: one method per route, errors as the classes of `hpo.errors`.

Answers are the JSON of the API as plain objects (`/docs` lists their fields). Workers have a client of their own, which
outlives outages; this one tells them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import quote, urljoin

import httpx

from .. import errors
from ..errors import AuthenticationError, HpoError, SetupError, SpecError, SpecIssue, StoreUnavailableError

Json = dict[str, Any]

TIMEOUT_SECONDS: Final = 30.0
_PAGE: Final = 1000
_CLASSES: Final[Mapping[str, Callable[[str], HpoError]]] = {
    "not-found": errors.NotFoundError,
    "study-exists": errors.StudyExistsError,
    "stale-lease": errors.StaleLeaseError,
    "conflict": errors.ConflictError,
    "authentication": AuthenticationError,
    "permission-denied": errors.PermissionDeniedError,
    "store-unavailable": StoreUnavailableError,
    "setup": SetupError,
}
"""The last part of a problem's type to the error that it stands for."""


class UnreachableError(StoreUnavailableError):
    """Nothing answers at the address of the API."""


class Client:
    """The API at `url`. Use it in a `with` block, or close it.

    Every method raises the error that the API names: `NotFoundError`, `ConflictError`, `AuthenticationError`,
    `PermissionDeniedError`, `StoreUnavailableError`; `UnreachableError` where nothing answers.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        try:
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, transport=transport)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise SetupError(f"{url!r} is no address of an API; write something like http://host:8000") from error

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # ---------------------------------------------------------------- studies

    def create_study(self, spec: Mapping[str, Any]) -> Json:
        """Create a study from a spec as plain data (`dump_spec` makes it).

        Raises:
            SpecError: names every wrong field.
            StudyExistsError: the name is taken.
        """
        return self._object("POST", "/v1/studies", json=dict(spec))

    def studies(self) -> list[Json]:
        """List the studies, without their specs."""
        return self._list("/v1/studies")

    def study(self, name: str) -> Json:
        """Show one study."""
        return self._object("GET", _of(name))

    def pause_study(self, name: str) -> Json:
        """Pause a study and give it as it is then."""
        return self._object("POST", _of(name, "pause"))

    def resume_study(self, name: str) -> Json:
        """Resume a paused study and give it as it is then."""
        return self._object("POST", _of(name, "resume"))

    def stop_study(self, name: str) -> Json:
        """Stop a study for good and give it as it is then."""
        return self._object("POST", _of(name, "stop"))

    def delete_study(self, name: str) -> None:
        """Delete a study with its trials."""
        self._send("DELETE", _of(name))

    # ---------------------------------------------------------------- trials and results

    def trials(self, name: str, *, states: Sequence[str] = ()) -> list[Json]:
        """List all trials of a study by number, without their curves."""
        found: list[Json] = []
        after: int | None = -1
        while after is not None:
            query = {"after": after, "limit": _PAGE, "state": list(states)}
            page = self._object("GET", _of(name, "trials"), params=query)
            found += page["trials"]
            after = page["next_after"]
        return found

    def trial(self, name: str, number: int) -> Json:
        """Show one trial with its curve."""
        return self._object("GET", _of(name, "trials", str(number)))

    def enqueue(self, name: str, guesses: Sequence[Mapping[str, Any]]) -> Json:
        """Ask for configurations to be tried next: all parameters or some. What was asked for before is not repeated.

        Raises:
            GuessError: a guess is not in the space; names the parameter.
            ConflictError: the study has ended, or its budget has no room.
        """
        return self._object("POST", _of(name, "trials"), json={"guesses": [dict(guess) for guess in guesses]})

    def cancel_trial(self, name: str, number: int) -> Json:
        """Cancel a trial; a running one ends at its next heartbeat."""
        return self._object("POST", _of(name, "trials", str(number), "cancel"))

    def curves(self, name: str, *, metric: str | None = None) -> Json:
        """Return one metric (the first objective) of every trial over the epochs."""
        return self._object("GET", _of(name, "curves"), params={} if metric is None else {"metric": metric})

    def best(self, name: str) -> Json:
        """Show the best trial so far, with its curve."""
        return self._object("GET", _of(name, "best"))

    def export(self, name: str, *, trial: int | None = None) -> Json:
        """Return the export document of the best trial, or of the one with that number."""
        query: Json = {"format": "json"} | ({} if trial is None else {"trial": trial})
        return self._object("GET", _of(name, "export"), params=query)

    def events(self, name: str, *, after: int = 0, limit: int = 500) -> list[Json]:
        """List what happened in a study after the event with the id `after`, oldest first."""
        return self._list(_of(name, "events"), params={"after": after, "limit": limit})

    # ---------------------------------------------------------------- the service

    def workers(self) -> list[Json]:
        """List the workers, the latest heard of first."""
        return self._list("/v1/workers")

    def health(self) -> Json:
        """Say how the service is; needs no token, and answers also while the database is away."""
        answer = self._request("GET", "/v1/health")
        if answer.status_code == 503 and answer.headers.get("content-type", "").startswith("application/json"):
            return dict(answer.json())
        return dict(self._checked(answer).json())

    def tokens(self) -> list[Json]:
        """List the API tokens; never their text."""
        return self._list("/v1/tokens")

    def create_token(self, name: str, scopes: Sequence[str], *, expires_in_hours: float | None = None) -> Json:
        """Make a token; its text is under `token` in this answer and nowhere else."""
        wanted = {"name": name, "scopes": list(scopes), "expires_in_hours": expires_in_hours}
        return self._object("POST", "/v1/tokens", json=wanted)

    def revoke_token(self, token_id: int) -> Json:
        """Make a token invalid from now on."""
        return self._object("DELETE", f"/v1/tokens/{token_id}")

    def login_link(self) -> str:
        """Make an address that logs a browser into the dashboard, once."""
        return urljoin(self.url + "/", str(self._object("POST", "/v1/login-links")["path"]).lstrip("/"))

    # ---------------------------------------------------------------- inside

    def _object(self, method: Literal["GET", "POST", "DELETE"], path: str, **request: Any) -> Json:
        return dict(self._send(method, path, **request).json())

    def _list(self, path: str, **request: Any) -> list[Json]:
        return list(self._send("GET", path, **request).json())

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self._checked(self._request(method, path, **request))

    def _request(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **request)
        except httpx.TimeoutException as error:
            raise UnreachableError(f"{self.url} did not answer in time; try again shortly") from error
        except httpx.UnsupportedProtocol as error:
            raise SetupError(f"{self.url!r} is no address of an API; write something like http://host:8000") from error
        except httpx.TransportError as error:
            raise UnreachableError(f"nothing answers at {self.url}; start it with `hpo serve`") from error

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        if answer.is_success:
            return answer
        if not answer.headers.get("content-type", "").startswith("application/problem+json"):
            raise SetupError(
                f"{self.url} answered {answer.status_code} and does not look like this API; check the address"
            )
        raise _error_of(answer.json())


def _error_of(problem: Mapping[str, Any]) -> HpoError:
    slug = str(problem.get("type", "")).rpartition("/")[2]
    if slug in ("invalid-spec", "invalid-guess", "invalid-request"):
        found = problem.get("errors") or [{"path": "", "message": problem["detail"]}]
        kind = errors.GuessError if slug == "invalid-guess" else SpecError
        return kind([SpecIssue(path=issue["path"], message=issue["message"]) for issue in found])
    return _CLASSES.get(slug, HpoError)(str(problem.get("detail") or problem.get("title")))


def _of(name: str, *rest: str) -> str:
    # A name goes into the path as one segment, whatever is in it.
    segment = quote(name, safe="").replace(".", "%2E") if name in (".", "..") else quote(name, safe="")
    return "/".join(["/v1/studies", segment, *rest])
