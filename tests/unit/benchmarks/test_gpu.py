"""The measurements of a GPU, tiny and on a CPU: each part has its rows, and what fails leaves the others."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
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
    assert any("compiled" in row["how"] for row in ways)
    (graphs,) = (row for row in rows["speed"] if "CUDA graphs" in row.get("how", "") and row["what"] == "r2plus1d_18")
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


def test_a_part_that_fails_leaves_its_rows_and_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text(
        "#!/bin/sh\n"
        'echo "a warning"; echo "{\\"what\\": \\"$4\\", \\"right\\": true}"\n'
        'if [ "$4" = broken ]; then echo "no such kernel" >&2; exit 7; fi\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    found = measured([Part("broken", 0.5), Part("whole", 0.5)], ["--cpu"], seconds=20)
    assert [part["rows"] for part in found.values()] == [[{"what": name, "right": True}] for name in found]
    assert found["broken"]["ended"] == "ended with status 7: no such kernel\n"
    assert found["whole"]["ended"] == "done"
    assert list(table(found))[2].startswith("| **broken** | ")


def test_a_part_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho "{}"; sleep 600; exit 0\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(gpu, "_START_SECONDS", 0.2)
    found = measured([Part("endless", 1.0)], [], seconds=0.2)
    assert (found["endless"]["rows"], found["endless"]["ended"][:20]) == ([{}], "ended with status -9")
