"""`hpo export` writes a folder that can be moved to another machine."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hpo.cli.results import write_export
from hpo.errors import SetupError
from hpo.results.export import build_export, load_export
from hpo.spec import parse_spec
from hpo.trial import Params, TrialRecord, TrialState
from workers.checkpoints import reference
from workers.checkpoints.folder import TrialFolder, verify
from workers.errors import CheckpointError

from ..spec.specs import VALID

STUDY = "5f0c7a3e-9d1b-4c55-8a52-0123456789ab"
PARAMS: Params = {"lr": 0.01, "weight_decay": 1e-05, "model": "slowfast_r50_4x16", "model.alpha": 8}


def _document(checkpoint: str | None) -> dict[str, Any]:
    trial = TrialRecord(
        id=11, number=7, state=TrialState.COMPLETED, params=PARAMS, metrics={"val_top1": 0.5}, epochs_done=40
    )
    export = build_export(
        study="slowfast-ucf101",
        spec=parse_spec(VALID),
        trial=trial,
        dataset_version=None,
        environment={},
        checkpoint=checkpoint,
    )
    return export.model_dump(mode="json")


def _checkpoint(root: Path, content: bytes | None = None, *, study: str = STUDY) -> Path:
    """Return a final checkpoint of trial 7 below `root`, of the form of PyTorch's files if no content is given."""
    if content is None:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("archive/data.pkl", b"weights")
        content = archive.getvalue()
    write: Any = lambda file: file.write(content)  # noqa: E731 - what torch.save does
    return TrialFolder(root / study / "7", attempt=1, run="0123456789ab").write_final(write)


@pytest.mark.parametrize("name", ["best.yaml", "best.json"])
@pytest.mark.parametrize("study", [STUDY, "3"], ids=["uuid", "earlier release"])
def test_the_checkpoint_is_beside_the_file_and_named_without_a_folder(tmp_path: Path, name: str, study: str) -> None:
    trained = _checkpoint(tmp_path / "worker", study=study)
    trained.chmod(0o600)
    output = tmp_path / "out" / "deep" / name
    assert write_export(_document(str(trained)), output, [tmp_path / "worker"]) == output.with_name("best.pt")
    assert output.with_name("best.pt").read_bytes() == trained.read_bytes()
    assert output.with_name("best.pt").stat().st_mode & 0o777 == 0o600
    assert load_export(output).checkpoint == "best.pt"
    assert str(tmp_path) not in output.read_text()
    assert {path.name for path in output.parent.iterdir()} == {"best.pt", name}


def test_only_the_end_of_a_reference_counts_and_the_roots_are_searched_in_their_order(tmp_path: Path) -> None:
    trained = _checkpoint(tmp_path / "shared")
    elsewhere = f"/home/of/the/worker/checkpoints/{STUDY}/7/{trained.name}"
    roots = [tmp_path / "absent", tmp_path / "shared"]
    assert reference.find(elsewhere, roots) == trained
    assert reference.find(f"{STUDY}/7/{trained.name}", roots) == trained
    assert reference.find(elsewhere, roots[:1]) is None


@pytest.mark.parametrize(
    "named",
    [
        "/proc/self/environ",
        "{secret}",
        "{root}/{study}/7/secret",
        "{root}/{study}/7/plain",
        "{root}/{study}/7/../7/{link}",
        "{root}/{study}/7/{link}",
        "{root}/{study}/8/{name}",
        "{root}/{study}/{name}",
        "{root}/../{study}/7/{name}",
        "../{study}/7/{name}\0",
        "{name}",
        "",
    ],
)
def test_a_worker_cannot_have_another_file_copied(
    tmp_path: Path, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, secret = tmp_path / "checkpoints", tmp_path / "secret"
    trained = _checkpoint(root)
    secret.write_text("the key")
    digest = hashlib.blake2b(b"the key", digest_size=8).hexdigest()
    link = trained.with_name(f"final-a0001-r0123456789ab-{digest}.pt")
    link.symlink_to(secret)
    (trained.parent / "secret").symlink_to(secret)
    (trained.parent / "plain").write_text("the key")
    (root / STUDY / "8").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / trained.name).write_bytes(trained.read_bytes())
    trained.unlink()
    places = {"root": root, "study": STUDY, "name": trained.name, "link": link.name, "secret": secret}
    output = tmp_path / "out" / "best.yaml"
    assert write_export(_document(named.format(**places)), output, [root]) is None
    assert list(output.parent.iterdir()) == [output]
    assert "checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: path.write_bytes(b"other"), "is damaged: its content does not match its name"),
        (None, "is not a checkpoint: it has neither the form of PyTorch's files nor ours"),
    ],
    ids=["damaged", "another form"],
)
def test_what_is_not_a_whole_checkpoint_is_not_copied(tmp_path: Path, damage: Any, sentence: str) -> None:
    trained = _checkpoint(tmp_path, b"text" if damage is None else None)
    if damage is not None:
        damage(trained)
    output = tmp_path / "out" / "best.yaml"
    with pytest.raises(CheckpointError, match=sentence):
        write_export(_document(str(trained)), output, [tmp_path])
    assert list(output.parent.iterdir()) == []


def test_the_copy_is_no_program_whatever_a_worker_has_made_of_its_file(tmp_path: Path) -> None:
    """A zip archive may begin with a program: with its mode, the copy would be one that runs as its owner."""
    trained = _checkpoint(tmp_path / "worker")
    trained.chmod(0o6755)
    copied = write_export(_document(str(trained)), tmp_path / "out" / "best.yaml", [tmp_path / "worker"])
    assert copied is not None
    assert stat.S_IMODE(copied.stat().st_mode) == 0o644


def test_what_changes_while_it_is_copied_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = _checkpoint(tmp_path / "worker")
    copy = shutil.copyfileobj

    def change_and_copy(source: Any, target: Any) -> None:
        with trained.open("r+b") as file:  # after it was checked
            file.write(b"other bytes")
        modes.append(stat.S_IMODE(os.fstat(target.fileno()).st_mode))
        copy(source, target)

    modes: list[int] = []
    monkeypatch.setattr(shutil, "copyfileobj", change_and_copy)
    with pytest.raises(CheckpointError, match="is damaged: its content does not match its name"):
        write_export(_document(str(trained)), tmp_path / "out" / "best.yaml", [tmp_path / "worker"])
    assert list((tmp_path / "out").iterdir()) == []
    assert modes == [0o600], "until it is whole, nobody else reads it"


def test_a_link_that_takes_the_place_of_a_checkpoint_is_not_followed(tmp_path: Path) -> None:
    trained = _checkpoint(tmp_path / "worker")
    found = reference.find(str(trained), [tmp_path / "worker"])
    assert found is not None
    trained.rename(tmp_path / "elsewhere.pt")
    trained.symlink_to(tmp_path / "elsewhere.pt")
    with pytest.raises(OSError, match="symbolic link"):
        reference.copy(found, tmp_path / "copy.pt")
    assert not (tmp_path / "copy.pt").exists()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    trained = _checkpoint(tmp_path)
    trained.unlink()
    os.mkfifo(trained)
    assert reference.find(str(trained), [tmp_path]) is None
    with pytest.raises(CheckpointError, match="is a pipe or a device, not a checkpoint"):
        verify(trained)


def test_paths_on_another_machine_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "best.json"
    assert write_export(_document("/worker/7/last.pt"), output, [tmp_path]) is None
    assert json.loads(output.read_text())["checkpoint"] == "/worker/7/last.pt"
    assert not output.with_suffix(".pt").exists()
    assert "not on this machine (/worker/7/last.pt)" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"best\.yaml cannot be written"):
        write_export(_document(None), tmp_path / "file" / "best.yaml", [tmp_path])
