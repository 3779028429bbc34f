"""The lane of workers' calls: how many are in it, who is next, and that every place comes back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from api.lane import PLACES, Lane
from hpo.errors import StoreUnavailableError
from hpo.store import Database

SECONDS = 30.0


class Pools:
    """A database of which only the number of connections is of interest."""

    def __init__(self) -> None:
        self.asked: list[dict[str, int]] = []

    def beside(self, **sizes: int) -> Database:
        self.asked.append(sizes)
        return cast(Database, self)

    def close(self) -> None:
        self.asked.clear()


class Door:
    """Calls that stay in the database until they may go."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.may_go = threading.Event()
        self._has_entered = threading.Semaphore(0)

    def call(self, name: str) -> Callable[[Database], str]:
        def pass_through(_: Database) -> str:
            self.entered.append(name)
            self._has_entered.release()
            assert self.may_go.wait(SECONDS)
            return name

        return pass_through

    async def until_entered(self, count: int) -> None:
        for _ in range(count):
            assert await asyncio.to_thread(self._has_entered.acquire, timeout=SECONDS)


def _run(test: Callable[[], Awaitable[None]]) -> None:
    async def in_time() -> None:
        await asyncio.wait_for(test(), SECONDS)

    asyncio.run(in_time())


def _lane(connections: int = 15, **how: float) -> Lane:
    return Lane(cast(Any, Pools()), connections=connections, **{"slow_seconds": 3600.0, **how})


@pytest.mark.parametrize("connections", [1, 2, PLACES, 15])
def test_no_more_calls_than_places_are_in_the_database_and_the_others_follow_in_their_order(connections: int) -> None:
    async def test() -> None:
        lane, door, places = _lane(connections), Door(), min(PLACES, connections)
        names = [f"call {place}" for place in range(places + 3)]
        calls = [asyncio.create_task(lane.run(door.call(name))) for name in names]
        await door.until_entered(places)
        assert sorted(door.entered) == sorted(names[:places])
        for _ in range(5):  # whoever could enter would do so now
            await asyncio.sleep(0)
        assert len(door.entered) == places
        door.may_go.set()
        assert await asyncio.gather(*calls) == names
        assert sorted(door.entered) == sorted(names)

    _run(test)


def test_those_who_wait_enter_in_the_order_in_which_they_came() -> None:
    async def test() -> None:
        lane, door = _lane(1), Door()
        calls = [asyncio.create_task(lane.run(door.call(name))) for name in "abcde"]
        await door.until_entered(1)
        door.may_go.set()
        await asyncio.gather(*calls)
        assert door.entered == [*"abcde"]

    _run(test)


def test_who_gets_no_place_in_time_is_refused_and_has_done_nothing() -> None:
    async def test() -> None:
        lane, door = _lane(2, wait_seconds=0.01), Door()
        calls = [asyncio.create_task(lane.run(door.call(name))) for name in "ab"]
        await door.until_entered(2)
        for _ in range(3):
            with pytest.raises(StoreUnavailableError, match="too many calls of workers wait"):
                await lane.run(door.call("late"))
        door.may_go.set()
        await asyncio.gather(*calls)
        assert sorted(door.entered) == ["a", "b"]
        assert await lane.run(door.call("next")) == "next", "those that were refused keep no place"

    _run(test)


def test_a_slow_call_leaves_its_place_and_goes_on() -> None:
    async def test() -> None:
        lane, slow, quick = _lane(2, slow_seconds=0.0), Door(), Door()
        calls = [asyncio.create_task(lane.run(slow.call(name))) for name in "abc"]
        await slow.until_entered(3)
        quick.may_go.set()
        assert await lane.run(quick.call("quick")) == "quick"
        slow.may_go.set()
        assert await asyncio.gather(*calls) == [*"abc"]

    _run(test)


def test_a_slow_call_gives_its_place_back_once() -> None:
    async def test() -> None:
        lane, slow, quick = _lane(1, slow_seconds=0.0), Door(), Door()
        call = asyncio.create_task(lane.run(slow.call("slow")))
        await slow.until_entered(1)
        quick.may_go.set()
        await lane.run(quick.call("the place was left"))
        slow.may_go.set()
        await call
        lane._slow_seconds = 3600.0
        door = Door()
        calls = [asyncio.create_task(lane.run(door.call(name))) for name in "ab"]
        await door.until_entered(1)
        for _ in range(5):
            await asyncio.sleep(0)
        assert door.entered == ["a"], "there is one place, as before"
        door.may_go.set()
        await asyncio.gather(*calls)

    _run(test)


def test_errors_and_requests_that_end_give_their_places_back() -> None:
    def fail(_: Database) -> None:
        raise LookupError("nothing there")

    async def test() -> None:
        lane, door = _lane(1), Door()
        for _ in range(3):
            with pytest.raises(LookupError, match="nothing there"):
                await lane.run(fail)
        inside, waiting = (asyncio.create_task(lane.run(door.call(name))) for name in ("inside", "waiting"))
        await door.until_entered(1)
        for one in (waiting, inside):
            one.cancel()
            with pytest.raises(asyncio.CancelledError):
                await one
        door.may_go.set()
        assert await lane.run(door.call("next")) == "next"
        assert "waiting" not in door.entered

    _run(test)


@pytest.mark.parametrize("connections", [1, 4, 15])
def test_it_has_connections_of_its_own_and_closes_them(connections: int) -> None:
    pools = Pools()
    lane = Lane(cast(Any, pools), connections=connections)
    (sizes,) = pools.asked
    assert sizes["pool_size"] + sizes["max_overflow"] == connections
    assert sizes["pool_size"] == min(PLACES, connections)
    lane.close()
    assert not pools.asked
