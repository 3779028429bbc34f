"""What can be asked of the API: one function per operation, whose arguments and result are those of both clients.

Every operation raises the error that the API names: `NotFoundError`, `ConflictError`, `AuthenticationError`,
`PermissionDeniedError`, `StoreUnavailableError`; `UnreachableError` where nothing answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote

import httpx

from .replies import (
    BestTrial,
    Confusion,
    CreatedToken,
    Curves,
    DeletedStudy,
    Enqueued,
    Event,
    Health,
    Imported,
    Log,
    Opening,
    StudyAnswer,
    StudyDetail,
    StudySummary,
    Token,
    TrialDetail,
    TrialPage,
    TrialSummary,
    Worker,
)
from .steps import Call, Item, ItemSteps, Steps

Json = dict[str, Any]
T = TypeVar("T")
TRIALS_PER_PAGE: Final = 1000
EVENTS_PER_PAGE: Final = 1000

# -------------------------------------------------------------------- studies


def create_study(spec: Mapping[str, Any]) -> Call[StudyDetail]:
    """Create a study from a spec as plain data (`hpo.spec.dump_spec` makes it), and return it.

    Raises:
        SpecError: names every wrong field.
        StudyExistsError: the name is taken.
    """
    return _call("POST", "/v1/studies", StudyDetail, json=dict(spec))


def studies() -> Call[list[StudySummary]]:
    """Return the studies, without their specs."""
    return _call("GET", "/v1/studies", list[StudySummary])


def study(name: str) -> Call[StudyDetail]:
    """Return one study."""
    return _call("GET", path_of(name), StudyDetail)


def pause_study(name: str) -> Call[StudyDetail]:
    """Pause a study and return it as it is afterwards."""
    return _call("POST", path_of(name, "pause"), StudyDetail)


def resume_study(name: str) -> Call[StudyDetail]:
    """Resume a paused study and return it as it is afterwards."""
    return _call("POST", path_of(name, "resume"), StudyDetail)


def stop_study(name: str) -> Call[StudyDetail]:
    """Stop a study for good and return it as it is afterwards."""
    return _call("POST", path_of(name, "stop"), StudyDetail)


def edit_study(name: str, *, revision: int | None = None, **changes: Any) -> Call[StudyDetail]:
    """Change a study that has not ended, and return it as it is afterwards.

    Args:
        name: of the study.
        revision: that of the study that the changes were made from; None for whatever it is now.
        changes: of the budget `trials`, `gpu_hours`, `wall_hours`, `target` and `max_failed` (None takes a limit away);
            `early_stopping` as in a spec; `space`, of parameters the fields that change.

    Raises:
        SpecError: names what is wrong with a change.
        ConflictError: the study has ended, has another revision, or has trials that the change forbids.
    """
    parts: Json = {}
    for key in ("early_stopping", "space"):
        if key in changes:
            parts[key] = changes.pop(key)
    body: Json = {**parts, "budget": changes}
    if revision is not None:
        body["revision"] = revision
    return _call("PATCH", path_of(name), StudyDetail, json=body)


def rename_study(name: str, new_name: str) -> Call[StudyDetail]:
    """Call a study by another name, and return it.

    Raises:
        StudyExistsError: the new name is taken.
        ConflictError: a live worker takes trials of this study alone, by its name.
    """
    return _call("PATCH", path_of(name), StudyDetail, json={"name": new_name})


def import_trials(name: str, trials: Sequence[Mapping[str, Any]]) -> Call[Imported]:
    """Take over results from elsewhere, each as `hpo.protocol.ImportedTrial`; all of them, or none.

    Raises:
        SpecError: one is not a result of the study.
        ConflictError: the study has ended.
    """
    return _call("POST", path_of(name, "import"), Imported, json={"trials": [dict(trial) for trial in trials]})


def note_study(name: str, note: str) -> Call[StudyDetail]:
    """Keep a note of a study in place of the one before (an empty text removes it), and return the study."""
    return _call("PATCH", path_of(name), StudyDetail, json={"note": note})


def reopen_study(name: str, **budget: Any) -> Call[StudyDetail]:
    """Let a study that has ended or was stopped search on, with its budget changed as in `edit_study`.

    Raises:
        SpecError: names what is wrong with the budget.
        ConflictError: the study has not ended, or would end again at once.
    """
    return _call("POST", path_of(name, "reopen"), StudyDetail, json={"budget": budget})


def train_finalists(name: str, **wanted: Any) -> Call[StudyDetail]:
    """Have the best configurations of a study trained again, and return the study as it is afterwards.

    `wanted` are `top`, `seeds`, `share`, `probability` and `end_search`, each with a default.

    Raises:
        ConflictError: the study is just ending, has no result, or cannot train a configuration again.
    """
    return _call("POST", path_of(name, "finalists"), StudyDetail, json=wanted)


def delete_study(name: str) -> Call[DeletedStudy]:
    """Delete a study with its trials and the files that the service reaches; return what became of its files.

    A service of an earlier release removes no files and says nothing: the answer is empty then.
    """
    return Call("DELETE", path_of(name), lambda answer: answer.json() if answer.content else DeletedStudy())


# -------------------------------------------------------------------- trials and results


def trials_page(
    name: str, *, states: Sequence[str] = (), after: int = -1, limit: int = TRIALS_PER_PAGE
) -> Call[TrialPage]:
    """Return up to `limit` (1 to 1000) trials of a study by number, from the one after the number `after` on."""
    query = {"after": after, "limit": limit, "state": list(states)}
    return _call("GET", path_of(name, "trials"), TrialPage, params=query)


def iter_trials(name: str, *, states: Sequence[str] = ()) -> ItemSteps[TrialSummary]:
    """Iterate over the trials of a study by number, without their curves. One page of 1000 is in memory at a time."""
    after: int | None = -1
    while after is not None:
        page = yield from trials_page(name, states=states, after=after)
        for found in page["trials"]:
            yield Item(found)
        after = page["next_after"]


def trials(name: str, *, states: Sequence[str] = ()) -> Steps[list[TrialSummary]]:
    """Return all trials of a study by number, without their curves."""
    found: list[TrialSummary] = []
    after: int | None = -1
    while after is not None:
        page = yield from trials_page(name, states=states, after=after)
        found += page["trials"]
        after = page["next_after"]
    return found


def trial(name: str, number: int) -> Call[TrialDetail]:
    """Return one trial with its curve."""
    return _call("GET", path_of(name, "trials", str(number)), TrialDetail)


def trial_log(name: str, number: int, *, attempt: int | None = None, after: int = 0) -> Call[Log]:
    """Return what a trial printed in an attempt (the last one if none is given), from the place `after` on.

    Raises:
        NotFoundError: there is no such attempt.
    """
    query: Json = {"after": after} | ({} if attempt is None else {"attempt": attempt})
    return _call("GET", path_of(name, "trials", str(number), "log"), Log, params=query)


def confusion(name: str, number: int) -> Call[Confusion]:
    """Return how the newest validation of a trial classified its videos.

    Raises:
        NotFoundError: the trial has sent none.
    """
    return _call("GET", path_of(name, "trials", str(number), "confusion"), Confusion)


def enqueue(name: str, guesses: Sequence[Mapping[str, Any]]) -> Call[Enqueued]:
    """Ask for configurations to be tried next: all parameters or some. What was asked for before is not repeated.

    Raises:
        GuessError: a guess is not in the space; names the parameter.
        ConflictError: the study has ended, or its budget has no room.
    """
    return _call("POST", path_of(name, "trials"), Enqueued, json={"guesses": [dict(guess) for guess in guesses]})


def replicate_trial(name: str, number: int) -> Call[TrialSummary]:
    """Have the configuration of a trial trained again with another seed, and return the new trial.

    Raises:
        ConflictError: the study has ended, or nobody has claimed the trial yet.
    """
    return _call("POST", path_of(name, "trials", str(number), "replicate"), TrialSummary)


def cancel_trial(name: str, number: int) -> Call[TrialSummary]:
    """Cancel a trial and return it; a running one ends at its next heartbeat."""
    return _call("POST", path_of(name, "trials", str(number), "cancel"), TrialSummary)


def delete_trial(name: str, number: int) -> Call[TrialSummary]:
    """Take a trial that has ended out of its study, and return it as it is then.

    Raises:
        ConflictError: it has not ended, or its configuration was trained again.
    """
    return _call("DELETE", path_of(name, "trials", str(number)), TrialSummary)


def curves(name: str, *, metric: str | None = None, points: int | None = None) -> Call[Curves]:
    """Return one metric (the first objective) of every trial over the steps.

    `points` thins each curve to about that many, evenly spread.
    """
    query = {"metric": metric, "points": points}
    return _call("GET", path_of(name, "curves"), Curves, params=_given(query))


def best(name: str) -> Call[BestTrial]:
    """Return the best trial so far, with its curve.

    Raises:
        NotFoundError: no trial has a result that keeps the constraints.
    """
    return _call("GET", path_of(name, "best"), BestTrial)


def answer(name: str) -> Call[StudyAnswer]:
    """Return what is believed of every configuration with a result, the best first.

    Raises:
        NotFoundError: no trial has a result that keeps the constraints.
    """
    return _call("GET", path_of(name, "answer"), StudyAnswer)


def export(name: str, *, trial: int | None = None) -> Call[Json]:
    """Return the export document of the best trial, or of the one with that number."""
    return _call("GET", path_of(name, "export"), Json, params={"format": "json"} | _given({"trial": trial}))


def events(name: str, *, after: int = 0, limit: int = 500) -> Call[list[Event]]:
    """Return what happened in a study after the event with the id `after`, oldest first."""
    return _call("GET", path_of(name, "events"), list[Event], params={"after": after, "limit": limit})


# -------------------------------------------------------------------- the service


def workers() -> Call[list[Worker]]:
    """Return the workers, the one heard from most recently first."""
    return _call("GET", "/v1/workers", list[Worker])


def release_workers(*, name: str | None = None, host: str | None = None) -> Call[None]:
    """Let the worker of this name, or all workers of this host, have trials again.

    Raises:
        NotFoundError: no such worker was heard of.
    """
    return _silent("POST", "/v1/workers/release", json={"name": name} if host is None else {"host": host})


def openings(test_list: str) -> Call[list[Opening]]:
    """Return the openings of a sealed test list, the oldest first."""
    return _call("GET", "/v1/openings", list[Opening], params={"test_list": test_list})


def keep_opening(opening: Mapping[str, Any]) -> Call[None]:
    """Keep an opening of a sealed test list, or what it found; a repeat changes nothing.

    Raises:
        ConflictError: the id is that of another list's opening.
    """
    return Call("POST", "/v1/openings", lambda _: None, json=dict(opening), may_repeat=True)


def health() -> Call[Health]:
    """Return the state of the service, with what is missing where the token is valid.

    It needs no token, and works also while the database cannot be reached.
    """
    return Call("GET", "/v1/health", _body, is_answer=_says_what_is_missing)


def tokens() -> Call[list[Token]]:
    """Return the API tokens, never their text."""
    return _call("GET", "/v1/tokens", list[Token])


def create_token(name: str, scopes: Sequence[str], *, expires_in_hours: float | None = None) -> Call[CreatedToken]:
    """Create a token and return it; its text is under `token` in this answer and nowhere else."""
    wanted = {"name": name, "scopes": list(scopes), "expires_in_hours": expires_in_hours}
    return _call("POST", "/v1/tokens", CreatedToken, json=wanted)


def revoke_token(token_id: int) -> Call[Token]:
    """Revoke a token and return it; it is not valid from now on."""
    return _call("DELETE", f"/v1/tokens/{token_id}", Token)


def login_path() -> Call[str]:
    """Return a new path of the service that logs a browser into the dashboard, once."""
    return Call("POST", "/v1/login-links", lambda answer: str(answer.json()["path"]), may_repeat=True)


# -------------------------------------------------------------------- inside


def path_of(name: str, *rest: str) -> str:
    """Return the path of a study, or of something in it. A name is one segment of it, whatever is in it."""
    segment = quote(name, safe="").replace(".", "%2E") if name in (".", "..") else quote(name, safe="")
    return "/".join(["/v1/studies", segment, *rest])


def _call(
    method: Literal["GET", "POST", "PATCH", "DELETE"],
    path: str,
    _: type[T],
    *,
    params: Mapping[str, Any] | None = None,
    json: Any = None,
) -> Call[T]:
    return Call(method, path, _body, params=params or {}, json=json)


def _silent(method: Literal["POST"], path: str, *, json: Any) -> Call[None]:
    return Call(method, path, lambda _: None, json=json)


def _body(answer: httpx.Response) -> Any:
    return answer.json()


def _says_what_is_missing(answer: httpx.Response) -> bool:
    return answer.status_code == 503 and answer.headers.get("content-type", "").startswith("application/json")


def _given(query: Mapping[str, Any]) -> Json:
    return {name: value for name, value in query.items() if value is not None}
