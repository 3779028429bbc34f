"""Batches that are made on a stream of their own, with streams that only note what is asked of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data.clips.stream import streamed

GPU = torch.device("cuda")


class Streams:
    """The streams of a GPU: `said` is what happened, in its order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self.within = "main"
        self.made = -1
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: SimpleNamespace(record_event=lambda: self.made))
        monkeypatch.setattr(torch.cuda, "stream", self._entered)
        main = SimpleNamespace(wait_event=lambda number: self.said.append(f"wait {number}"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)

    def _entered(self, stream: Any) -> AbstractContextManager[None]:
        @contextmanager
        def block() -> Iterator[None]:
            self.within = "beside"
            yield
            self.within = "main"

        return block()

    def batches(self, count: int) -> Iterator[Any]:
        """Yield stand-ins of batches, and note on which stream they are made."""
        for number in range(count):
            self.made = number
            self.said.append(f"make {number} {self.within}")
            tensor = SimpleNamespace(record_stream=lambda stream, number=number: self.said.append(f"keep {number}"))
            yield SimpleNamespace(ids=number, tensors=lambda tensor=tensor: [tensor])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_next_batch_is_made_beside_the_present_one_which_waits_for_its_own(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    streams = Streams(monkeypatch)
    for batch in streamed(streams.batches(count), GPU):
        assert streams.within == "main"
        streams.said.append(f"train {batch.ids}")
    expected = ["make 0 beside"] if count else []
    for number in range(count):
        ahead = [f"make {number + 1} beside"] if number + 1 < count else []
        expected += [*ahead, f"wait {number}", f"keep {number}", f"train {number}"]
    assert streams.said == expected
