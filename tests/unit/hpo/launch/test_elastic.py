"""How many workers a fleet has, against an engine in memory: what is asked of it, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from hpo.errors import AuthenticationError, SetupError, StoreUnavailableError
from hpo.installation import EXIT_MACHINE, EXIT_TOKEN
from hpo.launch.elastic import MOST_UNSTARTED, Bounds, Fleet, Lost, Report
from hpo.launch.supervisor import Change

RUNS = Report(host="node", state="running")
ENDED = replace(RUNS, state="ended", status=0)
BROKEN = replace(RUNS, state="given up", status=EXIT_MACHINE, said="no GPU")


@dataclass
class Cluster:
    """Machines with room for so many workers; a place is the number of its worker."""

    slots: int = 100
    room: str = "1 GPU"
    there: dict[int, bool] = field(default_factory=dict)
    """The places that were asked for and not given back, and whether their workers stay."""
    news: dict[int, Report | Lost] = field(default_factory=dict)
    drained: list[tuple[int, bool]] = field(default_factory=list)
    """Which workers were asked to end, and whether at once."""
    placed: int = 0

    def place(self, name: str, *, stays: bool) -> int:
        self.placed += 1
        assert name == f"worker-{self.placed}"
        self.there[self.placed] = stays
        return self.placed

    def look(self, places: Sequence[int]) -> Mapping[int, Report | Lost]:
        assert set(places) == set(self.there)
        running = {place: RUNS for place in sorted(places)[: self.slots]}
        found = {place: self.news.get(place, report) for place, report in running.items()}
        self.news.clear()
        return found

    def drain(self, place: int, *, at_once: bool) -> None:
        self.drained.append((place, at_once))

    def remove(self, place: int) -> None:
        del self.there[place]


@dataclass
class Service:
    """What is left to do; None while the service is away."""

    left: int | None

    def ask(self) -> int:
        if self.left is None:
            raise StoreUnavailableError("nothing answers")
        return self.left


def _fleet(cluster: Cluster, service: Service, *, most: int = 4, least: int = 0) -> tuple[Fleet[int], list[Change]]:
    said: list[Change] = []
    return Fleet(cluster, Bounds(most=most, least=least), trials_left=service.ask, on_change=said.append), said


def test_there_are_as_many_workers_as_trials_and_bounds_allow_and_none_is_ended_for_being_too_many() -> None:
    cluster, service = Cluster(), Service(2)
    fleet, said = _fleet(cluster, service)
    counts = []
    for left in (2, 3, 9, 1, 0, 9):
        service.left = left
        fleet.step()
        counts.append(len(cluster.there))
    assert counts == [2, 3, 4, 4, 4, 4]
    assert not cluster.drained
    assert cluster.placed == 4
    service.left = 1
    cluster.news = {1: ENDED, 3: ENDED, 4: ENDED}  # they were idle for long
    fleet.step()
    assert list(cluster.there) == [2]
    assert [change.sentence for change in said][-1] == "1 trial left: 1 worker at work"


def test_places_that_wait_for_room_are_withdrawn_with_the_work_the_newest_first() -> None:
    cluster, service = Cluster(slots=1), Service(9)
    fleet, said = _fleet(cluster, service, least=2)
    fleet.step()
    fleet.step()
    assert cluster.there == {1: True, 2: True, 3: False, 4: False}
    assert said[-1].sentence == "9 trials left: 1 worker at work; 3 wait for room (1 GPU each)"
    service.left = 3
    fleet.step()
    assert list(cluster.there) == [1, 2, 3]
    service.left = 0
    fleet.step()
    assert list(cluster.there) == [1, 2], "as many as there are also without work"


@pytest.mark.parametrize("news", [replace(RUNS, is_leaving=True), Lost(why="its node has died"), BROKEN, ENDED])
def test_a_worker_that_is_lost_or_cannot_work_or_leaves_is_replaced_at_once_by_one_of_its_kind(
    news: Report | Lost,
) -> None:
    cluster = Cluster()
    fleet, _ = _fleet(cluster, Service(9), most=2, least=1)
    fleet.step()
    cluster.news = {1: news}
    fleet.step()
    kept = isinstance(news, Report) and news.state != "ended"  # it still has its place
    assert cluster.there == ({1: True} if kept else {}) | {2: False, 3: True}


def test_where_every_worker_is_given_up_the_fleet_says_so() -> None:
    cluster = Cluster()
    fleet, said = _fleet(cluster, Service(9), most=2)
    fleet.step()
    cluster.news = {1: BROKEN}
    fleet.step()
    assert (said[-1].worker, said[-1].is_fault) == ("fleet", False)
    assert "it said:\nno GPU" in said[-2].sentence
    cluster.news = {3: BROKEN}
    with pytest.raises(SetupError, match="2 workers were given up"):
        fleet.step()


def test_a_refused_token_ends_the_fleet() -> None:
    cluster = Cluster()
    fleet, _ = _fleet(cluster, Service(9))
    fleet.step()
    cluster.news = {1: replace(BROKEN, status=EXIT_TOKEN)}
    with pytest.raises(AuthenticationError, match="token of the workers is refused"):
        fleet.step()


def test_workers_that_are_lost_before_they_are_heard_of_are_not_started_for_ever() -> None:
    cluster = Cluster()
    fleet, _ = _fleet(cluster, Service(9), most=1)
    fleet.step()
    for number in range(1, MOST_UNSTARTED):
        cluster.news = {number: Lost(why="No module named 'hpo'")}
        fleet.step()
    cluster.news = {MOST_UNSTARTED: Lost(why="No module named 'hpo'")}
    with pytest.raises(SetupError, match=r"8 workers in a row could not be started, .* No module named 'hpo'"):
        fleet.step()


def test_without_an_answer_of_the_service_everything_stays_and_that_is_said_once() -> None:
    cluster, service = Cluster(), Service(None)
    fleet, said = _fleet(cluster, service, least=1)
    fleet.step()
    assert not cluster.there, "nobody knows yet whether the address is right"
    service.left = 3
    fleet.step()
    service.left = None
    fleet.step()
    cluster.news = {1: Lost(why="gone")}
    fleet.step()
    assert len(cluster.there) == 3
    assert [change.sentence for change in said if change.worker == "service"] == [
        "nothing answers; the workers stay as they are",
        "answers again",
        "nothing answers; the workers stay as they are",
    ]
    assert not fleet.has_nothing_to_do


def test_a_fleet_that_is_asked_to_end_drains_its_workers_and_withdraws_those_that_wait() -> None:
    cluster = Cluster(slots=2)
    fleet, _ = _fleet(cluster, Service(9), most=3)
    fleet.step()
    fleet.step()
    fleet.drain()
    assert (list(cluster.there), cluster.drained) == ([1, 2], [(1, False), (2, False)])
    fleet.drain()
    assert cluster.drained[2:] == [(1, True), (2, True)]
    is_over = []
    for news in ({1: ENDED}, {2: Lost(why="gone")}):
        cluster.news = dict(news)
        fleet.step()
        is_over.append(fleet.is_over)
    assert is_over == [False, True]
    assert cluster.placed == 3, "none takes the place of another any more"
