"""`hpo evaluate` without a service: the test list is opened once, and a score belongs to its checkpoint."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from api.v1 import openings
from data import open_dataset
from hpo.cli import seal
from hpo.errors import ConflictError, HpoError, SetupError, SpecError
from hpo.results.opening import Opening
from workers.checkpoints.folder import TrialFolder, Writable, Writer, run_of
from workers.checkpoints.reference import sha256_of

from ...workers.tiny import tiny_task
from .exports import Bench

FINAL = ("--final", "--cpu", "--clips", "2")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A bench whose frames are prepared once."""
    return Bench.make(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture
def bench(shared: Bench) -> Bench:
    """The same, with its test list sealed."""
    shared.home.mkdir(exist_ok=True)
    (shared.home / "cache" / "unsealed.jsonl").unlink(missing_ok=True)
    return shared


def _openings(bench: Bench) -> list[dict[str, Any]]:
    log = bench.home / "cache" / "unsealed.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _record(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.with_suffix(".final.json").read_text()))


def test_the_test_list_stays_sealed_without_the_word_final(bench: Bench, tmp_path: Path) -> None:
    result = bench.run("evaluate", bench.export(tmp_path / "best.yaml"))
    assert isinstance(result.exception, SetupError)
    assert "--final" in str(result.exception)
    assert _openings(bench) == []


def test_the_test_list_is_opened_once_and_the_score_kept(bench: Bench, tmp_path: Path) -> None:
    file = bench.export(tmp_path / "best.yaml")
    first = bench.run("evaluate", file, *FINAL, "--crops", "3")
    assert first.exit_code == 0, first.exception
    assert "on 8 sealed videos, 2 clips x 3 crops each; chance is 0.500" in first.output
    assert f"recorded in {bench.home / 'cache' / 'unsealed.jsonl'} alone" in first.stderr
    opening, score = _openings(bench)
    assert opening["reason"] == "final evaluation of trial 7 of study tiny"
    assert (score["id"], score["score"]["top1"]) == (opening["id"], _record(file)["top1"])
    assert opening["checkpoint"] == _record(file)["checkpoint"]
    second = bench.run("evaluate", file, *FINAL)
    at = _record(file)["at"][:16].replace("T", " ")
    assert f"The test list was opened on {at} UTC: this is the score of then." in " ".join(second.stdout.split())
    assert first.stdout.splitlines()[-1] == second.stdout.splitlines()[-1]
    assert len(_openings(bench)) == 2


def test_a_score_is_that_of_the_checkpoint_not_of_the_file_name(bench: Bench, tmp_path: Path) -> None:
    file = bench.export(tmp_path / "best.yaml")
    bench.run("evaluate", file, *FINAL)
    before = _record(file)
    bench.export(file, weights=1)  # of the same trial of a study of the same name, made anew
    refused = bench.run("evaluate", file, *FINAL)
    assert isinstance(refused.exception, ConflictError)
    assert "was opened once before" in str(refused.exception)
    assert f"final evaluation of trial 7 of study tiny: top-1 {before['top1']:.3f}" in str(refused.exception)
    again = bench.run("evaluate", file, *FINAL, "--again")
    assert again.exit_code == 0, again.exception
    assert "was opened once before" in again.stderr
    assert _record(file)["checkpoint"] != before["checkpoint"]


def test_a_checkpoint_is_known_under_another_name(bench: Bench, tmp_path: Path) -> None:
    one, two = bench.export(tmp_path / "one.yaml"), tmp_path / "two.yaml"
    bench.run("evaluate", one, *FINAL)
    two.write_text(one.read_text())
    result = bench.run("evaluate", two, *FINAL)
    assert "The test list was opened on" in result.stdout
    assert _record(two)["top1"] == _record(one)["top1"]
    assert len(_openings(bench)) == 2


def test_the_same_list_seen_by_another_study_is_told(bench: Bench, tmp_path: Path) -> None:
    bench.run("evaluate", bench.export(tmp_path / "a.yaml", study="first"), *FINAL)
    other = bench.run("evaluate", bench.export(tmp_path / "b.yaml", study="second", weights=2), *FINAL)
    assert isinstance(other.exception, ConflictError)
    assert "study first" in str(other.exception)


def test_an_interrupted_evaluation_is_repeated_without_a_word(bench: Bench, tmp_path: Path) -> None:
    file = bench.export(tmp_path / "best.yaml")
    bench.run("evaluate", file, *FINAL)
    log = bench.home / "cache" / "unsealed.jsonl"
    log.write_text(log.read_text().splitlines()[0] + "\n")
    file.with_suffix(".final.json").unlink()
    assert bench.run("evaluate", file, *FINAL).exit_code == 0


def test_what_an_earlier_release_recorded_counts(bench: Bench, tmp_path: Path) -> None:
    file = bench.export(tmp_path / "best.yaml")
    bench.run("evaluate", file, *FINAL)
    log = bench.home / "cache" / "unsealed.jsonl"
    opening = json.loads(log.read_text().splitlines()[0])
    old = {name: opening[name] for name in ("time", "version", "split", "clips", "reason")}
    log.write_text(json.dumps(old) + "\n")
    file.with_suffix(".final.json").write_text(json.dumps({"study": "tiny", "trial": 7, "top1": 1.0}))
    result = bench.run("evaluate", file, *FINAL)
    assert isinstance(result.exception, ConflictError), "whose score is beside the file, nobody knows"


def test_an_export_without_a_checkpoint_cannot_be_scored(bench: Bench, tmp_path: Path) -> None:
    file = bench.export(tmp_path / "best.yaml")
    file.write_text(file.read_text().replace("checkpoint: best.pt", "checkpoint: null"))
    assert "`hpo train" in str(bench.run("evaluate", file, *FINAL).exception)
    assert _openings(bench) == []


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut short", None], ids=["empty", "text", "cut", "pipe"])
def test_a_file_that_is_no_checkpoint_is_a_sentence(bench: Bench, tmp_path: Path, content: bytes | None) -> None:
    file = bench.export(tmp_path / "best.yaml")
    file.with_suffix(".pt").unlink()
    if content is None:
        os.mkfifo(file.with_suffix(".pt"))
    else:
        file.with_suffix(".pt").write_bytes(content)
    result = bench.run("evaluate", file, *FINAL)
    assert isinstance(result.exception, HpoError)
    assert "best.pt" in str(result.exception)
    assert "\n" not in str(result.exception)
    assert len(str(result.exception)) < 300, "no advice of libraries to programmers"
    assert _openings(bench) == []


@pytest.mark.parametrize("content", [b"name: x\n", b"\xff\xfe", b"", None], ids=["study", "bytes", "empty", "pipe"])
def test_a_file_that_is_no_export_is_a_sentence(bench: Bench, tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        os.mkfifo(tmp_path / "best.yaml")
    else:
        (tmp_path / "best.yaml").write_bytes(content)
    result = bench.run("evaluate", tmp_path / "best.yaml", *FINAL)
    assert isinstance(result.exception, SpecError)
    assert "best.yaml" in str(result.exception)


def test_every_measure_is_printed_and_kept(bench: Bench, tmp_path: Path) -> None:
    file = bench.export(tmp_path / "best.yaml")
    scores, picture = tmp_path / "scores.json", tmp_path / "confusion.png"
    result = bench.run("evaluate", file, *FINAL, "--scores", scores, "--confusion", picture)
    assert result.exit_code == 0, result.exception
    kept, written = _record(file), json.loads(scores.read_text())
    for name in ("top-3", "top-5", "mean error", "mAP", "mean over classes", "SlideLeft", "SlideRight"):
        assert name in result.stdout
    assert kept["table"]["v-top1"] == kept["top1"] == written["table"]["v-top1"]
    assert [one["name"] for one in kept["classes"]] == written["classes"] == ["SlideLeft", "SlideRight"]
    assert len(written["videos"]) == kept["videos"] == sum(map(sum, written["confusion"]))
    right = [video["prediction"] == video["label"] for video in written["videos"].values()]
    assert sum(right) / len(right) == kept["top1"]
    assert {len(video["frames"]) for video in written["videos"].values()} == {2}
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert _openings(bench)[1]["score"]["mean_average_precision"] == kept["mean_average_precision"]


def test_the_validation_list_needs_no_seal(bench: Bench, tmp_path: Path) -> None:
    file = bench.export(tmp_path / "best.yaml")
    result = bench.run("evaluate", file, "--validation", "--cpu", "--clips", "1", "--scores", tmp_path / "v.json")
    assert result.exit_code == 0, result.exception
    assert "Validation  top-1" in result.stdout
    assert "on 4 videos" in result.stdout
    assert len(json.loads((tmp_path / "v.json").read_text())["videos"]) == 4
    assert _openings(bench) == []
    assert not file.with_suffix(".final.json").exists()


def test_the_validation_videos_are_those_that_the_trial_held_out(bench: Bench, tmp_path: Path) -> None:
    held_out: list[set[str]] = []
    for seed in (1, 2):
        file, scores = bench.export(tmp_path / f"{seed}.yaml", split_seed="trial", seed=seed), tmp_path / "v.json"
        result = bench.run("evaluate", file, "--validation", "--cpu", "--clips", "1", "--scores", scores)
        assert result.exit_code == 0, result.exception
        spec = tiny_task(bench.videos).dataset.model_copy(update={"split_seed": seed})  # as the job opens it
        opened = open_dataset(spec, cache_dir=bench.home / "cache")
        held_out.append({clip.id for clip in opened.validation_clips})
        assert set(json.loads(scores.read_text())["videos"]) == held_out[-1]
    assert held_out[0] != held_out[1]


@pytest.mark.parametrize(
    ("option", "name", "words"),
    [
        ("--scores", "none/s.json", "there is no folder"),
        ("--confusion", "picture.txt", "end in .png"),
        ("--scores", "best.yaml", "would be written over, and is read"),
        ("--scores", "best.pt", "would be written over, and is read"),
    ],
)
def test_files_that_cannot_be_written_are_refused_before_the_seal_breaks(
    bench: Bench, tmp_path: Path, option: str, name: str, words: str
) -> None:
    result = bench.run("evaluate", bench.export(tmp_path / "best.yaml"), *FINAL, option, tmp_path / name)
    assert isinstance(result.exception, SetupError)
    assert words in str(result.exception)
    assert _openings(bench) == []


def test_scores_and_picture_need_files_of_their_own(bench: Bench, tmp_path: Path) -> None:
    one = ("--scores", tmp_path / "one.png", "--confusion", tmp_path / "one.png")
    result = bench.run("evaluate", bench.export(tmp_path / "best.yaml"), "--validation", *one)
    assert isinstance(result.exception, SetupError)
    assert "name two files" in str(result.exception)


def _keep_snapshots(bench: Bench, file: Path, folder: Path) -> None:
    """Put the weights of an export into the folder of its trial, and those of other epochs beside them."""
    study = UUID(int=int.from_bytes(file.stem.encode()))  # no other test's
    kept = TrialFolder.of(bench.home / "checkpoints", study=study, trial_id=1, attempt=1, run=run_of(study))
    kept.write_final(_copying(file))
    for epoch, write in ((1, kept.write_best), (2, kept.write_nth)):
        write(_copying(bench.export(folder / f"other{epoch}.yaml", weights=10 + epoch)), epoch=epoch)


def _copying(file: Path) -> Writer:
    def write(target: Writable) -> None:
        target.write(file.with_suffix(".pt").read_bytes())

    return write


def test_every_snapshot_is_compared_on_the_validation_list(bench: Bench, tmp_path: Path) -> None:
    file = bench.export(tmp_path / "compared.yaml")
    _keep_snapshots(bench, file, tmp_path)
    result = bench.run("evaluate", file, "--validation", "--cpu", "--clips", "1", "--snapshot", "all")
    assert result.exit_code == 0, result.exception
    rows = [line.split() for line in result.stdout.splitlines() if re.search(r"│ *(best|epoch 2|last) ", line)]
    alone = bench.run("evaluate", tmp_path / "other1.yaml", "--validation", "--cpu", "--clips", "1")
    assert len(rows) == 3
    assert f"top-1 {rows[0][rows[0].index('best') + 4]} " in alone.stdout
    assert _openings(bench) == []


def test_the_test_list_is_opened_for_one_snapshot_at_a_time(bench: Bench, tmp_path: Path) -> None:
    file = bench.export(tmp_path / "opened.yaml")
    _keep_snapshots(bench, file, tmp_path)
    assert "one epoch" in str(bench.run("evaluate", file, *FINAL, "--snapshot", "all").exception)
    assert bench.run("evaluate", file, *FINAL, "--snapshot", "best").exit_code == 0
    opening = _openings(bench)[0]
    assert opening["reason"] == "final evaluation of trial 7 of study tiny, epoch 1"
    kept = json.loads((tmp_path / "opened.epoch-1.final.json").read_text())
    assert kept["checkpoint"] == opening["checkpoint"] == sha256_of(tmp_path / "other1.pt")
    last = bench.run("evaluate", file, *FINAL)
    assert isinstance(last.exception, ConflictError), "the list is open, whichever weights are scored"
    assert "epoch 1: top-1" in str(last.exception)
    assert not file.with_suffix(".final.json").exists()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [("5", "no weights of epoch 5"), ("best", "no weights of the best epoch"), ("worst", "last, best, all or")],
)
def test_weights_that_were_not_kept_are_a_sentence(bench: Bench, tmp_path: Path, wanted: str, words: str) -> None:
    result = bench.run("evaluate", bench.export(tmp_path / "alone.yaml", weights=99), *FINAL, "--snapshot", wanted)
    assert isinstance(result.exception, SetupError)
    assert words in str(result.exception)
    assert _openings(bench) == []


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        (("--devices", "cpu,tpu:0"), "'tpu:0' names no device"),
        (("--devices", "cpu,"), "'' names no device"),
        (("--devices", "cpu,cpu", "--cpu"), "leave --gpu and --cpu out"),
    ],
)
def test_devices_that_are_none_are_a_sentence(
    bench: Bench, tmp_path: Path, devices: tuple[str, ...], words: str
) -> None:
    result = bench.run("evaluate", bench.export(tmp_path / "best.yaml"), "--final", *devices)
    assert isinstance(result.exception, SetupError)
    assert words in str(result.exception)
    assert _openings(bench) == []


def test_a_damaged_record_is_a_sentence(bench: Bench, tmp_path: Path) -> None:
    file = bench.export(tmp_path / "best.yaml")
    file.with_suffix(".final.json").write_text("{")
    result = bench.run("evaluate", file, *FINAL)
    assert isinstance(result.exception, SetupError)
    assert "move it away" in str(result.exception)


def test_crops_that_do_not_exist_break_no_seal(bench: Bench, tmp_path: Path) -> None:
    file = bench.export(tmp_path / "best.yaml")
    refused = bench.run("evaluate", file, *FINAL, "--crops", "2")
    assert isinstance(refused.exception, SetupError)
    assert "crops is 2" in str(refused.exception)
    assert "the opening is recorded" not in refused.stderr, "the service was told"
    assert _openings(bench) == []
    assert bench.run("evaluate", file, *FINAL).exit_code == 0


def test_what_an_earlier_release_recorded_of_another_version_is_told_as_a_guess(bench: Bench, tmp_path: Path) -> None:
    file = bench.export(tmp_path / "best.yaml")
    log = bench.home / "cache" / "unsealed.jsonl"
    old = {"time": 1.0, "version": "before files were added", "split": 1, "clips": 8, "reason": "trial 3"}
    log.write_text(json.dumps(old) + "\n")
    refused = bench.run("evaluate", file, *FINAL)
    assert isinstance(refused.exception, ConflictError)
    assert "perhaps of this list: trial 3" in str(refused.exception)
    log.write_text(json.dumps({**old, "clips": 9}) + "\n")
    assert bench.run("evaluate", file, *FINAL).exit_code == 0


class _Earlier(BaseHTTPRequestHandler):
    """A service that does not know the route."""

    def _answer(self) -> None:
        body = b'{"type": "about:blank", "title": "Not Found", "status": 404, "detail": "there is no such route"}'
        self.send_response(404)
        self.send_header("Content-Type", "application/problem+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer

    def log_message(self, *_: object) -> None:
        """Say nothing on standard error, where the command speaks."""


def test_a_service_that_keeps_no_openings_is_told_and_not_needed(bench: Bench, tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Earlier) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            file = bench.export(tmp_path / "best.yaml")
            result = bench.run("evaluate", file, *FINAL, url=f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
    assert result.exit_code == 0, result.exception
    assert "of an earlier release, which keeps no openings" in result.stderr
    assert len(_openings(bench)) == 2


class _Failing(_Earlier):
    """A service that keeps an opening, and whose database is away when the score comes."""

    def _answer(self) -> None:
        asked: list[str] = self.server.asked  # type: ignore[attr-defined]  # put there by the test
        asked.append(self.command)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = {1: (200, b"[]"), 2: (204, b"")}.get(
            len(asked), (503, b'{"type": "/problems/store-unavailable", "detail": "the database is away"}')
        )
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status == 200 else "application/problem+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer


def test_a_score_that_the_service_cannot_keep_is_shown_all_the_same(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "_PATIENCE_SECONDS", 0.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Failing) as server:
        server.asked = []  # type: ignore[attr-defined]  # put there by the test
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            file = bench.export(tmp_path / "best.yaml")
            result = bench.run("evaluate", file, *FINAL, url=f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
    assert result.exit_code == 0, result.exception
    assert "took no record of the score (the database is away)" in " ".join(result.stderr.split())
    assert f"top-1 {_record(file)['top1']:.3f}" in result.stdout
    assert _openings(bench)[1]["score"]["top1"] == _record(file)["top1"]


def test_the_opening_for_a_refit_says_so(bench: Bench, tmp_path: Path) -> None:
    file = bench.export(tmp_path / "best.yaml")
    file.write_text(file.read_text() + "refit: true\n")
    assert bench.run("evaluate", file, *FINAL).exit_code == 0
    assert _openings(bench)[0]["reason"] == "final evaluation of trial 7 of study tiny, refit"


def test_a_kept_score_of_few_measures_is_printed(bench: Bench, tmp_path: Path) -> None:
    file = bench.export(tmp_path / "best.yaml")
    bench.run("evaluate", file, *FINAL)
    kept = {name: _record(file)[name] for name in ("at", "checkpoint", "top1")}
    file.with_suffix(".final.json").write_text(json.dumps(kept))
    result = bench.run("evaluate", file, *FINAL)
    assert result.exit_code == 0, result.exception
    assert f"Test        top-1 {kept['top1']:.3f}\n" in result.stdout


def test_the_example_of_an_opening_has_all_that_an_evaluation_keeps(bench: Bench, tmp_path: Path) -> None:
    bench.run("evaluate", bench.export(tmp_path / "best.yaml"), *FINAL)
    example = Opening.model_validate(openings._EXAMPLE)
    assert example.score is not None
    assert set(example.score) == set(_openings(bench)[1]["score"])


def test_a_data_set_without_test_videos_opens_nothing(bench: Bench, tmp_path: Path) -> None:
    file = bench.export(tmp_path / "best.yaml", split_seed=None)
    opened = open_dataset(tiny_task(bench.videos).dataset, cache_dir=bench.home / "cache")
    shutil.copytree(bench.videos, tmp_path / "videos")
    for clip in opened.unseal_test(reason="a test"):
        (tmp_path / "videos" / clip.path).unlink()
    (bench.home / "cache" / "unsealed.jsonl").unlink()
    file.write_text(file.read_text().replace(str(bench.videos), str(tmp_path / "videos")))
    refused = bench.run("evaluate", file, *FINAL)
    assert "no usable test clips" in str(refused.exception)
    assert "recorded" not in refused.stderr, "the service was told"
    assert _openings(bench) == []


@pytest.mark.parametrize(
    ("command", "way_out"),
    [
        (("evaluate", "--final", "--gpu", "1"), "--cpu scores without one"),
        (("evaluate", "--final", "--devices", "cpu,cuda:1"), "with cpu in its place, --devices scores without it"),
        (("predict", "clip.avi", "--gpu", "1"), "--cpu scores without one"),
        (("train", "--gpu", "1"), "--cpu trains without one"),
    ],
)
def test_without_the_gpu_each_command_says_what_it_does_without(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], way_out: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    name, *arguments = command
    (tmp_path / "clip.avi").touch()
    monkeypatch.chdir(tmp_path)
    result = bench.run(name, bench.export(tmp_path / "best.yaml"), *arguments)
    assert isinstance(result.exception, SetupError)
    assert str(result.exception).endswith(f"({way_out})")
