"""`hpo data scan | check | stats | split | export`: what they print, write and return."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data import make_demo_dataset
from data.index.file import read_index
from hpo.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, four groups, one clip each."""
    root = tmp_path_factory.mktemp("demo") / "set"
    return make_demo_dataset(
        root, classes=("Grow", "Shrink"), groups=4, clips_per_group=1, frames=(4, 6), size=(32, 16)
    )


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["--home", str(tmp_path / "home"), "data", *map(str, arguments)])
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return call


def test_scan_writes_the_index_and_its_labels(demo: Path, run: Run, tmp_path: Path) -> None:
    code, shown, _ = run("scan", demo, "-o", tmp_path / "index")
    assert code == 0
    assert "layout ucf101, 2 classes, 8 clips (8 ok)" in shown
    index = read_index(tmp_path / "index" / "index.json")
    assert json.loads((tmp_path / "index" / "labels.json").read_text()) == {"0": "Grow", "1": "Shrink"}
    meta = json.loads((tmp_path / "index" / "meta.json").read_text())
    assert (meta["layout"], meta["version"], meta["clips"], meta["splits"]) == ("ucf101", index.hash, 8, [1, 2, 3])
    assert meta["status"] == {"ok": 8}


def test_scan_without_output_writes_beside_the_caches(demo: Path, run: Run, tmp_path: Path) -> None:
    assert run("scan", demo)[0] == 0
    (found,) = (tmp_path / "home").rglob("index.json")
    assert found.parent.name.startswith("index-ucf101-")


def test_check_is_0_on_a_sound_set_and_1_with_names_on_another(demo: Path, run: Run, tmp_path: Path) -> None:
    code, shown, _ = run("check", demo)
    assert code == 0
    assert "8 clips" in shown
    assert "32x16 (8)" in shown
    root = tmp_path / "damaged"
    shutil.copytree(demo, root)
    folder = root / "videos" / "Grow"
    (folder / "v_Grow_g02_c01.avi").write_bytes(b"")
    shutil.copy(folder / "v_Grow_g03_c01.avi", folder / "v_Grow_g04_c01.avi")
    code, shown, _ = run("check", root)
    assert code == 1
    assert "left out: videos/Grow/v_Grow_g02_c01.avi: empty" in shown
    assert "the same video: Grow/v_Grow_g03_c01, Grow/v_Grow_g04_c01" in shown
    code, shown, _ = run("check", root, "--json")
    assert (code, json.loads(shown)["n_clips"]) == (1, 7)


def test_splits_are_numbered_as_high_as_the_lists_do(demo: Path, run: Run, tmp_path: Path) -> None:
    root = tmp_path / "many"
    shutil.copytree(demo, root)
    lists = next(root.rglob("trainlist01.txt")).parent
    for name in ("trainlist", "testlist"):
        (lists / f"{name}01.txt").rename(lists / f"{name}100.txt")
    code, shown, _ = run("check", root)
    assert (code, "Traceback" in shown) == (0, False)
    code, shown, _ = run("split", root, "--split", 100, "--seed", -3, "--json")
    assert (code, json.loads(shown)["split"]) == (0, 100)


def test_stats_count_clips_groups_and_sizes(demo: Path, run: Run) -> None:
    code, shown, _ = run("stats", demo, "--json")
    found = json.loads(shown)
    assert (code, found["clips"], found["groups"]) == (0, 8, 8)
    assert found["sizes"] == {"32x16": 8}
    assert found["fps"] == {"25": 8}
    assert found["frames"] == sum(each["frames"] for each in found["classes"])
    assert found["hours"] == pytest.approx(found["frames"] / 25 / 3600)
    spread = found["frames_per_clip"]
    assert 4 <= spread["least"] <= spread["median"] <= spread["most"] <= 6
    assert found["classes"][0]["sides"]["1"] == {"test": 1, "train": 3}
    table = run("stats", demo)[1]
    assert "frames per clip" in table
    assert "Shrink" in table


def test_a_written_index_needs_no_videos(demo: Path, run: Run, tmp_path: Path) -> None:
    run("scan", demo, "-o", tmp_path / "index")
    index = tmp_path / "index" / "index.json"
    for command in ("stats", "check"):
        code, shown, _ = run(command, index, "--json")
        assert (code, json.loads(shown)) == (0, json.loads(run(command, demo, "--json")[1]))
    index.write_text("{}")
    assert "is no index of a data set" in run("stats", index)[2]


def test_split_shows_and_writes_the_parts(demo: Path, run: Run, tmp_path: Path) -> None:
    code, shown, _ = run("split", demo, "--split", 2, "-o", tmp_path / "split.json")
    assert code == 0
    assert "validation" in shown
    written = json.loads((tmp_path / "split.json").read_text())
    assert (written["layout"], written["split"], written["held_out"]) == ("ucf101", 2, "1of6")
    assert written["test"] == ["Grow/v_Grow_g02_c01", "Shrink/v_Shrink_g02_c01"]
    assert written["validation"] == ["Grow/v_Grow_g04_c01", "Shrink/v_Shrink_g04_c01"]
    printed = json.loads(run("split", demo, "--split", 2, "--json")[1])
    assert printed == written


def test_split_decodes_nothing(demo: Path, run: Run, tmp_path: Path) -> None:
    root = tmp_path / "empty"
    shutil.copytree(demo, root)
    for video in root.rglob("*.avi"):
        video.write_bytes(b"")
    assert run("split", root)[0] == 0


def test_names_with_markup_are_shown_unchanged(run: Run, demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set" / "W[bold]alk"
    shutil.copytree(demo / "videos" / "Grow", folder)
    for command in ("check", "stats", "split"):
        assert "W[bold]alk" in run(command, tmp_path / "set")[1]
    (folder / os.fsdecode(b"\xff.avi")).touch()
    code, _, told = run("check", tmp_path / "set")
    assert code == 1
    assert r"a name that is not UTF-8, 'W[bold]alk/\udcff'; rename it" in told.replace("\n", " ")


def test_export_writes_lists_that_read_back(demo: Path, run: Run, tmp_path: Path) -> None:
    code, shown, _ = run("export", demo, tmp_path / "out", "--to", "path_lists")
    assert code == 0
    assert "8 clips of 8 written" in shown
    again = json.loads(run("stats", tmp_path / "out", "--json")[1])
    assert (again["layout"], again["version"]) == ("path_lists", json.loads(run("stats", demo, "--json")[1])["version"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "{demo}", "--name", "ucf202"), "no data set layout is called 'ucf202'"),
        (("scan", "{demo}/nowhere"), "there is no folder"),
        (("scan", "{demo}", "--name", "hmdb51"), "no <class>_test_split1.txt"),
        (("scan", "{demo}", "--group-pattern", "("), "not a regular expression"),
        (("split", "{demo}", "--validation", "some"), "validation is 'some'; it must be 'groups', 'kfold'"),
        (("split", "{demo}", "--validation", "official"), "no validation list of split 1"),
        (("split", "{demo}", "--held-out", "half"), "such as 3of18"),
        (("split", "{demo}", "--split", "9"), "no train clips of split 9"),
        (("split", "{demo}", "-o", "{demo}/no/such/file"), "cannot be written"),
        (("export", "{demo}", "{demo}", "--to", "csv"), "no export is called 'csv'"),
        (("export", "{demo}", "{demo}-out", "--to", "path_lists", "--split", "7"), "has no split 7"),
    ],
)
def test_a_mistake_is_reported_in_one_sentence(demo: Path, run: Run, arguments: tuple[str, ...], message: str) -> None:
    code, _, told = run(*(argument.replace("{demo}", str(demo)) for argument in arguments))
    assert code == 1
    assert told.count("error:") == 1
    assert message in told.replace("\n", " ")
    assert "Traceback" not in told


def test_bench_measures_every_form_and_leaves_nothing(demo: Path, run: Run, tmp_path: Path) -> None:
    killed, running = (tmp_path / "home" / "cache" / name for name in ("bench-ab12cd_3", "bench-zzzzzzzz"))
    for folder in (killed / "raw.building", running):
        folder.mkdir(parents=True)
    os.utime(killed, (0, 0))
    status, shown, _ = run("bench", demo, "--seconds", "0", "--short-side", "16", "--clip-frames", "4", "--json")
    found = json.loads(shown)
    assert status == 0
    assert [each["form"] for each in found["forms"]] == ["raw", "i420", "jpeg", "lmdb", "tinyvideo"]
    assert all(each["clips_per_second"] > 0 and each["bytes"] > 0 and each["fits"] for each in found["forms"])
    assert found["auto"]["form"] == "raw"
    assert "fits into half of the memory" in found["auto"]["why"]
    assert list((tmp_path / "home").rglob("bench-*")) == [running], "a folder of now may be of a bench that runs"
    assert not list((tmp_path / "home").rglob("manifest.json"))
    status, shown, _ = run("bench", demo, "--seconds", "0", "--short-side", "16")
    assert status == 0
    assert "auto takes raw" in shown


def test_a_data_set_at_an_address_is_copied_and_read(demo: Path, run: Run, tmp_path: Path) -> None:
    code, shown, _ = run("check", f"file://{demo}")
    assert code == 0
    assert "8 clips" in shown
    code, shown, _ = run("split", f"file://{demo}", "--json")
    assert json.loads(shown)["root"] == f"file://{demo}"
    assert run("export", f"file://{demo}", tmp_path / "out", "--to", "webdataset")[0] == 0
    assert run("prepare", f"file://{tmp_path}/out", "--short-side", 16)[0] == 0
    code, _, said = run("check", "s3://key:secret@bucket/set")
    assert code == 1
    assert "s3://…@bucket/set holds a password or key" in said
    assert "secret" not in said
