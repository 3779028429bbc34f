"""Talk to the API as a person's program does: one method per route, errors as the classes of `hpo.errors`.

Answers are the JSON of the API as plain objects (`/docs` lists their fields). Workers have a client of their own, which
waits through outages; this one reports them at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import quote, urljoin

import httpx

from ..errors import SetupError
from .connection import Connection
from .problems import error_of, is_problem

Json = dict[str, Any]

TIMEOUT_SECONDS: Final = 30.0
_TRIALS_PER_PAGE: Final = 1000


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
        server_file: Path | None = None,
        ca_file: Path | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Prepare the connection; nothing is sent yet. The arguments are those of `Connection`.

        Raises:
            SetupError: `url` is not an address.
        """
        self._connection = Connection(
            url, token, timeout=timeout, server_file=server_file, ca_file=ca_file, transport=transport
        )
        self.url = self._connection.url

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
        self._connection.close()

    # ---------------------------------------------------------------- studies

    def create_study(self, spec: Mapping[str, Any]) -> Json:
        """Create a study from a spec as plain data (`dump_spec` makes it).

        Raises:
            SpecError: names every wrong field.
            StudyExistsError: the name is taken.
        """
        return self._object("POST", "/v1/studies", json=dict(spec))

    def studies(self) -> list[Json]:
        """Return the studies, without their specs."""
        return self._list("/v1/studies")

    def study(self, name: str) -> Json:
        """Return one study."""
        return self._object("GET", _of(name))

    def pause_study(self, name: str) -> Json:
        """Pause a study and return it as it is afterwards."""
        return self._object("POST", _of(name, "pause"))

    def resume_study(self, name: str) -> Json:
        """Resume a paused study and return it as it is afterwards."""
        return self._object("POST", _of(name, "resume"))

    def stop_study(self, name: str) -> Json:
        """Stop a study for good and return it as it is afterwards."""
        return self._object("POST", _of(name, "stop"))

    def edit_study(self, name: str, **budget: Any) -> Json:
        """Change the budget of a study that has not ended, and return it as it is afterwards.

        `budget` are `trials`, `gpu_hours`, `wall_hours`, `target` and `max_failed`; None takes a limit away.

        Raises:
            SpecError: names what is wrong with the budget.
            ConflictError: the study has ended, or has more trials than the new limit.
        """
        return self._object("PATCH", _of(name), json={"budget": budget})

    def note_study(self, name: str, note: str) -> Json:
        """Keep a note of a study in place of the one before (an empty text removes it), and return the study."""
        return self._object("PATCH", _of(name), json={"note": note})

    def reopen_study(self, name: str, **budget: Any) -> Json:
        """Let a study that has ended or was stopped search on, with its budget changed as in `edit_study`.

        Raises:
            SpecError: names what is wrong with the budget.
            ConflictError: the study has not ended, or would end again at once.
        """
        return self._object("POST", _of(name, "reopen"), json={"budget": budget})

    def train_finalists(self, name: str, **wanted: Any) -> Json:
        """Have the best configurations of a study trained again, and return the study as it is afterwards.

        `wanted` are `top`, `seeds`, `share`, `probability` and `end_search`, each with a default.

        Raises:
            ConflictError: the study is just ending, has no result, or cannot train a configuration again.
        """
        return self._object("POST", _of(name, "finalists"), json=wanted)

    def delete_study(self, name: str) -> Json:
        """Delete a study with its trials and the files that the service reaches; return what became of its files.

        A service of an earlier release removes no files and says nothing: the answer is empty then.
        """
        answer = self._send("DELETE", _of(name))
        return dict(answer.json()) if answer.content else {}

    # ---------------------------------------------------------------- trials and results

    def trials(self, name: str, *, states: Sequence[str] = ()) -> list[Json]:
        """Return all trials of a study by number, without their curves."""
        found: list[Json] = []
        after: int | None = -1
        while after is not None:
            query = {"after": after, "limit": _TRIALS_PER_PAGE, "state": list(states)}
            page = self._object("GET", _of(name, "trials"), params=query)
            found += page["trials"]
            after = page["next_after"]
        return found

    def trial(self, name: str, number: int) -> Json:
        """Return one trial with its curve."""
        return self._object("GET", _of(name, "trials", str(number)))

    def trial_log(self, name: str, number: int, *, attempt: int | None = None, after: int = 0) -> Json:
        """Return what a trial printed in an attempt (the last one if none is given), from the place `after` on.

        Raises:
            NotFoundError: there is no such attempt.
        """
        query: Json = {"after": after} | ({} if attempt is None else {"attempt": attempt})
        return self._object("GET", _of(name, "trials", str(number), "log"), params=query)

    def enqueue(self, name: str, guesses: Sequence[Mapping[str, Any]]) -> Json:
        """Ask for configurations to be tried next: all parameters or some. What was asked for before is not repeated.

        Raises:
            GuessError: a guess is not in the space; names the parameter.
            ConflictError: the study has ended, or its budget has no room.
        """
        return self._object("POST", _of(name, "trials"), json={"guesses": [dict(guess) for guess in guesses]})

    def replicate_trial(self, name: str, number: int) -> Json:
        """Have the configuration of a trial trained again with another seed, and return the new trial.

        Raises:
            ConflictError: the study has ended, or nobody has claimed the trial yet.
        """
        return self._object("POST", _of(name, "trials", str(number), "replicate"))

    def cancel_trial(self, name: str, number: int) -> Json:
        """Cancel a trial and return it; a running one ends at its next heartbeat."""
        return self._object("POST", _of(name, "trials", str(number), "cancel"))

    def curves(self, name: str, *, metric: str | None = None) -> Json:
        """Return one metric (the first objective) of every trial over the epochs."""
        return self._object("GET", _of(name, "curves"), params={} if metric is None else {"metric": metric})

    def best(self, name: str) -> Json:
        """Return the best trial so far, with its curve."""
        return self._object("GET", _of(name, "best"))

    def answer(self, name: str) -> Json:
        """Return what is believed of every configuration with a result, the best first.

        Raises:
            NotFoundError: no trial has a result that keeps the constraints.
        """
        return self._object("GET", _of(name, "answer"))

    def export(self, name: str, *, trial: int | None = None) -> Json:
        """Return the export document of the best trial, or of the one with that number."""
        query: Json = {"format": "json"} | ({} if trial is None else {"trial": trial})
        return self._object("GET", _of(name, "export"), params=query)

    def events(self, name: str, *, after: int = 0, limit: int = 500) -> list[Json]:
        """Return what happened in a study after the event with the id `after`, oldest first."""
        return self._list(_of(name, "events"), params={"after": after, "limit": limit})

    # ---------------------------------------------------------------- the service

    def workers(self) -> list[Json]:
        """Return the workers, the one heard from most recently first."""
        return self._list("/v1/workers")

    def release_workers(self, *, name: str | None = None, host: str | None = None) -> None:
        """Let the worker of this name, or all workers of this host, have trials again.

        Raises:
            NotFoundError: no such worker was heard of.
        """
        self._send("POST", "/v1/workers/release", json={"name": name} if host is None else {"host": host})

    def openings(self, test_list: str) -> list[Json]:
        """Return the openings of a sealed test list, the oldest first."""
        return self._list("/v1/openings", params={"test_list": test_list})

    def keep_opening(self, opening: Mapping[str, Any]) -> None:
        """Keep an opening of a sealed test list, or what it found; a repeat changes nothing.

        Raises:
            ConflictError: the id is that of another list's opening.
        """
        self._send("POST", "/v1/openings", json=dict(opening))

    def health(self) -> Json:
        """Return the state of the service, with what is missing where the token is valid.

        It needs no token, and works also while the database cannot be reached.
        """
        answer = self._connection.send("GET", "/v1/health")
        if answer.status_code == 503 and answer.headers.get("content-type", "").startswith("application/json"):
            return dict(answer.json())
        return dict(self._checked(answer).json())

    def tokens(self) -> list[Json]:
        """Return the API tokens, never their text."""
        return self._list("/v1/tokens")

    def create_token(self, name: str, scopes: Sequence[str], *, expires_in_hours: float | None = None) -> Json:
        """Create a token and return it; its text is under `token` in this answer and nowhere else."""
        wanted = {"name": name, "scopes": list(scopes), "expires_in_hours": expires_in_hours}
        return self._object("POST", "/v1/tokens", json=wanted)

    def revoke_token(self, token_id: int) -> Json:
        """Revoke a token and return it; it is not valid from now on."""
        return self._object("DELETE", f"/v1/tokens/{token_id}")

    def login_link(self) -> str:
        """Return a new address that logs a browser into the dashboard, once."""
        return urljoin(self.url + "/", str(self._object("POST", "/v1/login-links")["path"]).lstrip("/"))

    # ---------------------------------------------------------------- inside

    def _object(self, method: Literal["GET", "POST", "PATCH", "DELETE"], path: str, **request: Any) -> Json:
        return dict(self._send(method, path, **request).json())

    def _list(self, path: str, **request: Any) -> list[Json]:
        return list(self._send("GET", path, **request).json())

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self._checked(self._connection.send(method, path, **request))

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        if answer.is_success:
            return answer
        if not is_problem(answer):
            raise SetupError(
                f"{self.url} answered {answer.status_code} and does not look like this API; check the address"
            )
        raise error_of(answer)


def _of(name: str, *rest: str) -> str:
    # A name goes into the path as one segment, whatever is in it.
    segment = quote(name, safe="").replace(".", "%2E") if name in (".", "..") else quote(name, safe="")
    return "/".join(["/v1/studies", segment, *rest])
