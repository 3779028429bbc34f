"""What `hpo data check` says of clips and classes that are not used, and of equal videos."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from data.scanning.report import check
from data.scanning.scan import scan
from data.synthetic.dataset import write_video
from tests.unit.data.encoded import moving
from tests.unit.data.importers.trees import lay_out


def test_what_is_not_used_is_named_with_counts(tmp_path: Path) -> None:
    lists = {
        "classInd.txt": "1 Run\n2 Walk\n3 Swim\n4 Fly\n",
        "trainlist01.txt": "Run/a.avi 1\nWalk/b.avi 2\nFly/f.avi 4\n",
        "testlist01.txt": "Run/c.avi\nSwim/d.avi\n",
    }
    lay_out(tmp_path, lists, ["Run/extra.avi", "Fly/f.avi"])
    for seed, name in enumerate(("Run/a", "Walk/b", "Run/c", "Swim/d")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_video(tmp_path / f"{name}.avi", moving(8, 16, 24, seed=seed))
    notes = check(scan(tmp_path)).notes
    assert "1 videos are on no list, e.g. Run/extra.avi" in notes
    assert "1 classes have no usable clip, e.g. Fly" in notes
    assert "1 classes are not on the train list of split 1, e.g. Swim" in notes


def test_one_video_in_two_classes_or_on_two_sides_is_named(tmp_path: Path) -> None:
    lists = {
        "train.txt": "Run/a.avi 0\nWalk/b.avi 1\nWalk/e.avi 1\n",
        "val.txt": "Run/c.avi 0\n",
        "test.txt": "Run/d.avi 0\n",
    }
    lay_out(tmp_path, lists)
    for name in ("Run/a", "Walk/e"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
    write_video(tmp_path / "Run/a.avi", moving(8, 16, 24))
    write_video(tmp_path / "Walk/e.avi", np.zeros((8, 16, 24, 3), np.uint8))
    for name in ("Walk/b", "Run/d"):
        shutil.copy(tmp_path / "Run/a.avi", tmp_path / f"{name}.avi")
    write_video(tmp_path / "Run/c.avi", moving(8, 16, 24, seed=3))
    notes = check(scan(tmp_path)).notes
    assert "Run/a and Walk/b are the same video in two classes: remove one" in notes
    assert "Run/a and Run/d are the same video on two sides of a split: remove one" in notes
