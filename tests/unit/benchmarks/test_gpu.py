"""The measurements of a GPU, tiny and on a CPU: each part has its rows, and what fails leaves the others."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_speed
from benchmarks.gpu import PARTS, Part, measured, table


@pytest.mark.slow
def test_the_dry_run_measures_every_part_and_writes_everything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu", "--cpu", "--tiny", "--minutes", "30", "--json", str(file)])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    found = json.loads(file.read_text())
    assert {name: part["ended"] for name, part in found.items()} == {part.name: "done" for part in PARTS}
    assert ended.value.code == 0
    assert all(row["right"] for part in found.values() for row in part["rows"] if "right" in row)
    rows = {name: part["rows"] for name, part in found.items()}
    assert len(rows["convolutions"]) >= 3
    ways = [row for row in rows["speed"] if "clips_per_second" in row]
    assert len({row["what"] for row in ways}) == 4
    assert any("clips_per_second" in row for row in rows["compiled"])
    (graphs,) = (
        row for row in rows["compiled"] if "CUDA graphs" in row.get("how", "") and row["what"] == "r2plus1d_18"
    )
    assert graphs["skipped"] == "CUDA graphs need a GPU"
    assert [row["how"] for row in rows["loader"][1:]] == ["crop and flip", "colour jitter", "RandAugment"]
    assert rows["determinism"][0]["largest_difference"] == 0
    assert (rows["study"][0]["trials"], rows["study"][0]["lost"]) == (3, 0)
    assert [row["what"] for row in rows["study"][1:]] == [f"peak of memory, batches of {size}" for size in (4, 8)]
    assert sum(row["trials"] for row in rows["study"][1:]) == 3
    assert all(row["most_gib"] > row["counted_gib"] > 0 for row in rows["study"][1:] if row["trials"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| part | what | measured |"
    assert len(lines) == 2 + len(PARTS) + sum(map(len, rows.values()))


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Have a part run this script for the shell; `$4` is its name."""

    def use(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return use


Found = dict[str, Any]


def test_a_part_that_fails_leaves_its_rows_and_the_others(program: Callable[[str], None], tmp_path: Path) -> None:
    program(
        'echo "a warning"; echo "{\\"what\\": \\"$4\\", \\"right\\": true}"\n'
        'if [ "$4" = broken ]; then printf "{\\"wh"; echo "no such kernel" >&2; exit 7; fi'
    )
    found: Found = {}
    file = tmp_path / "gpu.json"
    measured([Part("broken", 0.5), Part("whole", 0.5)], ["--cpu"], seconds=20, into=found, file=file)
    assert [part["rows"] for part in found.values()] == [[{"what": name, "right": True}] for name in found]
    assert found["broken"]["ended"] == "ended with status 7: no such kernel\n"
    assert found["whole"]["ended"] == "done"
    assert json.loads(file.read_text()) == found
    assert list(table(found))[2].startswith("| **broken** | ")


def test_a_part_that_takes_too_long_is_ended(
    monkeypatch: pytest.MonkeyPatch, program: Callable[[str], None], tmp_path: Path
) -> None:
    program('echo "{}"; sleep 600; exit 0')
    monkeypatch.setattr(gpu, "_START_SECONDS", 0.2)
    found: Found = {}
    measured([Part("endless", 1.0)], [], seconds=0.2 + gpu._END_SECONDS, into=found, file=tmp_path / "gpu.json")
    assert (found["endless"]["rows"], found["endless"]["ended"][:20]) == ([{}], "ended with status -9")


def test_what_was_measured_stays_where_the_whole_program_is_ended(
    monkeypatch: pytest.MonkeyPatch, program: Callable[[str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pid = tmp_path / "pid"
    program(f'echo $$ > {pid}; echo "{{\\"what\\": \\"$4\\"}}"; exec sleep 600')
    file = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu", "--cpu", "--tiny", "--parts", "speed,loader", "--json", str(file)])
    write = gpu._write

    def ended_after(*arguments: Any) -> None:
        write(*arguments)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(gpu, "_write", ended_after)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            gpu.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 128 + signal.SIGTERM
    found = json.loads(file.read_text())
    assert [(name, part["ended"], part["rows"]) for name, part in found.items()] == [
        ("speed", "was under way", [{"what": "speed"}])
    ]
    assert "| speed | speed |" in capsys.readouterr().out
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_the_last_part_has_no_more_than_what_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limits = []

    def in_a_process(
        part: Part, flags: list[str], seconds: float, *, most: float, found: Found
    ) -> Generator[Found, None, None]:
        limits.append((part.name, round(seconds), round(most)))
        yield from ()

    monkeypatch.setattr(gpu, "_in_a_process", in_a_process)
    parts = [Part("one", 0.5), Part("two", 0.5)]
    measured(parts, [], seconds=100 + gpu._END_SECONDS, into={}, file=tmp_path / "gpu.json")
    assert limits == [("one", 50, 70), ("two", 100, 100)]


@pytest.mark.parametrize("part", ["convolutions", "speed", "compiled", "loader", "determinism"])
def test_an_exception_in_a_row_costs_that_row_alone(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    def once(function: Callable[..., Any]) -> Callable[..., Any]:
        calls = count()

        def failing(*arguments: Any, **named: Any) -> Any:
            if next(calls) == 0:
                raise RuntimeError("no such kernel\nand much more")
            return function(*arguments, **named)

        return failing

    place = gpu_speed.Place(device=torch.device("cpu"), tiny=True, deadline=float("inf"))
    monkeypatch.setattr(gpu_speed, "NETWORKS", {"r2plus1d_18": gpu_speed.TINY, "slowfast_r50_4x16": gpu_speed.TINY})
    monkeypatch.setattr(gpu_speed, "_seconds", lambda *_, **__: 1.0)
    monkeypatch.setattr(gpu_speed, "_epoch", lambda *_: 1.0)
    monkeypatch.setattr(gpu_speed, "_weights", lambda _: torch.zeros(1))
    monkeypatch.setattr(gpu_speed, "_timed", lambda *_: {"clips_per_second": 1.0})
    failing = once(lambda *_: {"right": True})
    monkeypatch.setattr(gpu_speed, "_compared", lambda *arguments: (failing(one) for one in arguments[:1]))
    name = {"speed": "_timed", "compiled": "_timed", "loader": "_epoch", "determinism": "_weights"}.get(part)
    if name is not None:
        monkeypatch.setattr(gpu_speed, name, once(getattr(gpu_speed, name)))
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        rows = list(getattr(gpu_speed, part)(place))
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
    failed = [row for row in rows if row.get("skipped") == "no such kernel"]
    assert len(failed) == 1
    assert failed[0]["what"]
    assert failed[0].get("right") is (False if part in ("convolutions", "determinism") else None)
    measured_rows = [row for row in rows if "skipped" not in row]
    assert len(measured_rows) >= (2 if part != "determinism" else 1)


def test_a_convolution_that_fails_is_no_check_that_was_passed() -> None:
    def rows() -> Iterator[Found]:
        yield {"error": 0.0, "right": True}
        raise RuntimeError("cuDNN error")

    assert list(gpu_speed.whatever_fails({"what": "3x3"}, rows(), fails="right")) == [
        {"what": "3x3", "error": 0.0, "right": True},
        {"what": "3x3", "skipped": "cuDNN error", "right": False},
    ]
