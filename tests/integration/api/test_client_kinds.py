"""Both clients do the same: each operation is written once; answers have the keys that their types name."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, get_type_hints

import httpx
import pytest

from api.app import create_app
from api.config import ApiConfig
from hpo.client import AsyncClient, Client, UnreachableError, calls, replies
from hpo.client.frames import curves_dataframe, trials_dataframe
from hpo.errors import HpoError, NotFoundError, SetupError
from hpo.store import Database

from .service import KEY, Service, claim_body, finished, measured

_SCHEMAS = {
    "Trial": replies.TrialSummary,
    **{
        kind.__name__: kind
        for kind in (
            replies.StudySummary, replies.StudyDetail, replies.TrialDetail, replies.TrialPage, replies.BestTrial,
            replies.Curves, replies.Curve, replies.Event, replies.Worker, replies.Enqueued, replies.DeletedStudy,
            replies.StudyAnswer, replies.Configuration, replies.ObjectiveEstimate, replies.Evidence, replies.Progress,
            replies.LoadedWeights, replies.Log, replies.Opening, replies.Token, replies.CreatedToken, replies.Health,
            replies.DataSet, replies.ImportanceSummary, replies.ImportanceRow, replies.StudyProgress, replies.GpuHours,
            replies.BestValue, replies.MissingFiles, replies.Tensors, replies.LeftOut, replies.FinalistsConfig,
            replies.Confusion,
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", _SCHEMAS)
def test_an_answer_has_the_keys_that_its_type_names(openapi: dict[str, Any], name: str) -> None:
    kind: Any = _SCHEMAS[name]
    assert set(get_type_hints(kind)) == set(openapi[name]["properties"])


@pytest.fixture(scope="module")
def openapi(postgres_admin: object) -> dict[str, Any]:
    schemas: dict[str, Any] = create_app(Database("postgresql://nowhere/x"), ApiConfig(key=KEY)).openapi()
    found: dict[str, Any] = schemas["components"]["schemas"]
    return found


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    operations = {
        name
        for name, made in vars(calls).items()
        if inspect.isfunction(made) and not name.startswith("_") and made.__module__ == calls.__name__
    } - {"path_of"}
    assert operations <= {name for name in dir(Client) if not name.startswith("_")}
    public = [
        name
        for name in dir(Client)
        if not name.startswith("_") and name not in ("run", "iterate", "close", "is_closed")
    ]
    for name in public:
        own, other = getattr(Client, name), getattr(AsyncClient, name)
        assert own.__doc__ == other.__doc__ != None, name  # noqa: E711 - in a chain
        assert list(inspect.signature(own).parameters) == list(inspect.signature(other).parameters), name


def test_the_same_answers_with_asyncio(past_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "TRIALS_PER_PAGE", 3)
    url, token = past_service.url, past_service.tokens["read"]

    async def ask() -> dict[str, Any]:
        async with AsyncClient(url, token) as client:
            with pytest.raises(NotFoundError, match="did you mean 'demo'"):
                await client.study("dmeo")
            return {
                "export": await client.export("demo", trial=1),  # the first one is an event
                "studies": [study["trial_counts"] for study in await client.studies()],
                "trials": await client.trials("demo"),
                "iterated": [trial async for trial in client.iter_trials("demo")],
                "best": await client.best("demo"),
                "curves": await client.curves("demo", points=2),
                "events": await client.events("demo", limit=1000),
                "health": (await client.health())["status"],
            }

    found = asyncio.run(ask())
    with Client(url, token) as client:
        assert found == {
            "export": client.export("demo", trial=1),
            "studies": [study["trial_counts"] for study in client.studies()],
            "trials": client.trials("demo"),
            "iterated": list(client.iter_trials("demo")),
            "best": client.best("demo"),
            "curves": client.curves("demo", points=2),
            "events": client.events("demo", limit=1000),
            "health": client.health()["status"],
        }
    assert [trial["number"] for trial in found["trials"]] == list(range(10))


def test_paging_keeps_one_page_in_memory() -> None:
    asked: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        after, limit = int(request.url.params["after"]), int(request.url.params["limit"])
        asked.append(after)
        page = [{"number": number} for number in range(after + 1, min(after + 1 + limit, 10_000))]
        last = page[-1]["number"]
        return httpx.Response(200, json={"trials": page, "next_after": last if last < 9_999 else None})

    with Client("http://api", transport=httpx.MockTransport(answer)) as client:
        found = client.iter_trials("many")
        for number in range(1000):
            assert next(found)["number"] == number
        assert asked == [-1], "the second page is asked for when it is needed"
        assert sum(1 for _ in found) == 9_000
    assert len(asked) == 10


def _work(service: Service, values: list[float]) -> None:
    """Let a worker finish trials of the study `demo`."""
    with service.http("worker") as http:
        for value in values:
            lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
            http.post(f"/v1/trials/{lease['trial_id']}/reports", json=measured(lease, 1, value)).raise_for_status()
            http.post(f"/v1/trials/{lease['trial_id']}/finish", json=finished(lease, value)).raise_for_status()


def test_watching_yields_each_event_once_and_ends_with_the_study(service: Service) -> None:
    study_id = service.create(budget={"trials": 2})
    service.suggest(study_id, 2)
    working = threading.Thread(target=_work, args=(service, [0.1, 0.2]))
    with Client(service.url, service.tokens["read"]) as client:
        watching = client.watch("demo")
        seen = [next(watching)]
        working.start()
        seen += watching
        working.join()
        assert [event["id"] for event in seen] == [event["id"] for event in client.events("demo", limit=1000)]
        assert seen[-1]["kind"] == "study.completed"
        assert list(client.watch("demo", after=seen[-3]["id"])) == seen[-2:], "of one that has ended, what is left"


class _Flaky(httpx.BaseTransport):
    """Passes requests on; a stream breaks off after an event, and every fourth request finds nobody."""

    def __init__(self) -> None:
        self._inner = httpx.HTTPTransport()
        self.streams, self.requests, self.is_away = 0, 0, False

    def close(self) -> None:
        self._inner.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if self.is_away or self.requests % 4 == 0:
            raise httpx.ConnectError("refused")
        if not request.url.path.endswith("/stream"):
            return self._inner.handle_request(request)
        self.streams += 1
        answer = self._inner.handle_request(request)
        assert isinstance(answer.stream, httpx.SyncByteStream)
        return httpx.Response(answer.status_code, headers=answer.headers, stream=_Cut(answer.stream))


class _Cut(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            yield chunk
            if b"data:" in chunk:
                raise httpx.ReadError("reset")

    def close(self) -> None:
        self._stream.close()


def test_watching_goes_on_where_it_was_after_an_interruption(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.client.watching._FIRST_PAUSE_SECONDS", 0.01)
    study_id = service.create(budget={"trials": 3})
    service.suggest(study_id, 3)
    flaky = _Flaky()
    with Client(service.url, service.tokens["read"], transport=flaky) as client:
        watching = client.watch("demo")
        seen = [next(watching)]
        working = threading.Thread(target=_work, args=(service, [0.1, 0.2, 0.3]))
        working.start()
        seen += watching
        working.join()
    with Client(service.url, service.tokens["read"]) as client:
        assert [event["id"] for event in seen] == [event["id"] for event in client.events("demo", limit=1000)]


class _Refuses(httpx.BaseTransport):
    """Passes requests on, but not the one of this number."""

    def __init__(self, number: int) -> None:
        self._inner = httpx.HTTPTransport()
        self._left = number

    def close(self) -> None:
        self._inner.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._left -= 1
        if self._left == 0:
            raise httpx.ConnectError("refused")
        return self._inner.handle_request(request)


def test_no_event_comes_twice_where_the_pages_of_past_ones_are_interrupted(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.client.watching._FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("hpo.client.watching.EVENTS_PER_PAGE", 2)
    service.complete(service.create(budget={"trials": 2}), 2)
    # The study, the first and the second page of its events, and then the third page, which is not answered.
    with Client(service.url, service.tokens["read"], transport=_Refuses(4)) as client:
        watched = [event["id"] for event in client.watch("demo")]
        assert watched == [event["id"] for event in client.events("demo", limit=1000)]


def test_watching_says_at_once_that_nothing_is_there_and_later_that_it_stays_away(service: Service) -> None:
    service.create()
    flaky = _Flaky()
    with Client(service.url, service.tokens["read"], transport=flaky) as client:
        flaky.is_away = True
        with pytest.raises(UnreachableError):
            next(client.watch("demo"))
        flaky.is_away, flaky.requests = False, 0
        watching = client.watch("demo", patience_seconds=0.0)
        assert next(watching)["kind"] == "study.created"
        flaky.is_away = True
        with pytest.raises(UnreachableError):
            list(watching)


def test_watching_ends_where_the_study_ends_while_its_first_events_are_read(service: Service) -> None:
    service.suggest(service.create(budget={"trials": 1}), 1)
    with Client(service.url, service.tokens["read"]) as client:
        watching = client.watch("demo")
        assert next(watching)["kind"] == "study.created"
        _work(service, [0.5])
        assert list(watching)[-1]["kind"] == "study.completed"


def test_watching_with_asyncio(service: Service) -> None:
    service.complete(service.create(budget={"trials": 2}), 2)

    async def collect() -> list[int]:
        async with AsyncClient(service.url, service.tokens["read"]) as client:
            return [event["id"] async for event in client.watch("demo")]

    with Client(service.url, service.tokens["read"]) as client:
        assert asyncio.run(collect()) == [event["id"] for event in client.events("demo", limit=1000)]


def test_a_stream_of_a_running_study_with_asyncio(service: Service) -> None:
    service.suggest(service.create(budget={"trials": 1}), 1)

    async def collect() -> list[str]:
        async with AsyncClient(service.url, service.tokens["read"]) as client:
            watching: AsyncIterator[replies.Event] = client.watch("demo")
            kinds = [(await anext(watching))["kind"]]
            working = asyncio.get_running_loop().run_in_executor(None, _work, service, [0.5])
            kinds += [event["kind"] async for event in watching]
            await working
            return kinds

    assert asyncio.run(collect())[-1] == "study.completed"


def test_errors_of_the_address_are_ours_with_asyncio() -> None:
    async def ask(url: str) -> None:
        async with AsyncClient(url) as client:
            await client.studies()

    with pytest.raises(SetupError, match="is not the address of an API"):
        asyncio.run(ask("ftp://x"))
    with pytest.raises(UnreachableError, match="nothing answers at http"):
        asyncio.run(ask("http://127.0.0.1:9"))


def test_without_an_address_the_client_finds_what_the_command_finds(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_URL", service.url)
    monkeypatch.setenv("HPO_TOKEN", service.tokens["read"])
    with Client() as client:
        assert client.url == service.url
        assert client.studies() == []


def test_frames_of_trials_and_curves(past_service: Service) -> None:
    with Client(past_service.url, past_service.tokens["read"]) as client:
        study, found, curves = client.study("demo"), client.trials("demo"), client.curves("demo")
    table = trials_dataframe(found, study["spec"])
    assert list(table["number"]) == list(range(10))
    assert {"value", "datetime_start", "datetime_complete", "duration", "params_lr", "params_dropout", "state"} <= set(
        table.columns
    )
    by_hand = {trial["number"]: (trial["metrics"] or {}).get("val_top1") for trial in found}
    for number, value in by_hand.items():
        shown = table.loc[table["number"] == number, "value"].item()
        assert (value is None and shown != shown) or shown == value  # noqa: PLR0124 - NaN
    long = curves_dataframe(curves)
    assert list(long.columns) == ["number", "state", "step", "val_top1"]
    assert len(long) == sum(len(curve["steps"]) for curve in curves["curves"])


def test_errors_name_what_is_wrong(past_service: Service) -> None:
    async def ask() -> None:
        async with AsyncClient(past_service.url, "wrong") as client:
            await client.studies()

    with pytest.raises(HpoError, match="hpo token show"):
        asyncio.run(ask())
