"""The HMDB51 importer: codes, sources across classes, the official lists."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest

from data.errors import DatasetFormatError, DatasetNotFoundError
from data.importers.hmdb51 import is_hmdb51, read_hmdb51
from data.index.listing import Listing
from data.index.splits import make_split
from data.specs import SplitSpec

from .trees import by_id, lay_out

RUN, WAVE = "RATRACE_run_f_nm_np1_fr_goo_37.avi", "RATRACE_wave_f_nm_np10_fr_goo_1.avi"
ODD = "some [odd] name;&.avi"
LISTS = {
    "run_test_split1.txt": f"{RUN} 1 \n{ODD} 0 \n",
    "wave_test_split1.txt": f"{WAVE} 2 \n",
    "run_test_split2.txt": f"{RUN} 2 \n{ODD} 1 \n",
    "wave_test_split2.txt": f"{WAVE} 0 \n",
}


def tree(root: Path, *, videos: str = "", lists: str = "testTrainMulti_7030_splits") -> Path:
    prefix = f"{videos}/" if videos else ""
    empty = [f"{prefix}run/{RUN}", f"{prefix}run/{ODD}", f"{prefix}wave/{WAVE}"]
    return lay_out(root, {f"{lists}/{name}": text for name, text in LISTS.items()}, empty)


@pytest.mark.parametrize("lists", ["testTrainMulti_7030_splits", "splits", "annotations", "."])
@pytest.mark.parametrize("videos", ["", "videos", "hmdb51_org"])
def test_codes_become_sides(tmp_path: Path, videos: str, lists: str) -> None:
    listing = read_hmdb51(tree(tmp_path, videos=videos, lists=lists))
    assert is_hmdb51(tmp_path)
    assert listing.class_names == ("run", "wave")
    clips = by_id(listing)
    assert clips[f"run/{RUN[:-4]}"].official == ((1, "train"), (2, "test"))
    assert clips[f"wave/{WAVE[:-4]}"].official == ((1, "test"),)
    assert clips[f"run/{ODD[:-4]}"].official == ((2, "train"),)
    assert all((tmp_path / clip.path).is_file() for clip in listing.clips)


def test_a_source_is_one_group_in_all_classes_and_an_odd_name_is_its_own(tmp_path: Path) -> None:
    listing = read_hmdb51(tree(tmp_path))
    clips = by_id(listing)
    assert clips[f"run/{RUN[:-4]}"].group == clips[f"wave/{WAVE[:-4]}"].group == "RATRACE"
    assert clips[f"run/{ODD[:-4]}"].group == f"run/{ODD[:-4]}"
    assert listing.notes == ("1 file names do not name a source; each of these clips is its own group",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.avi 3", "is not '<file> <0, 1 or 2>'"),
        ("a.avi", "is not '<file> <0, 1 or 2>'"),
        ("../a.avi 1", "not a path below"),
        ("/etc/a.avi 1", "is absolute"),
        ("wave/a.avi 1", "names a folder"),
        (f"{RUN} 2", "is listed twice, on two sides"),
    ],
)
def test_a_line_that_is_not_valid_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tree(tmp_path) / "testTrainMulti_7030_splits" / "run_test_split1.txt"
    path.write_text(LISTS["run_test_split1.txt"] + line)
    with pytest.raises(DatasetFormatError, match=rf"run_test_split1\.txt:3: .*{message}"):
        read_hmdb51(tmp_path)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"no <class>_test_split1\.txt"):
        read_hmdb51(tmp_path)
    lay_out(tmp_path, {f"splits/{name}": text for name, text in LISTS.items()})
    with pytest.raises(DatasetNotFoundError, match="no class folder such as"):
        read_hmdb51(tmp_path)


@pytest.fixture(scope="module")
def official(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Listing:
    root = tmp_path_factory.mktemp("hmdb51")
    (root / "splits").symlink_to(shared_data / "splits" / "hmdb51")
    (root / "videos" / "wave").mkdir(parents=True)
    return read_hmdb51(root)


def test_the_official_lists_have_their_published_counts(official: Listing) -> None:
    assert (len(official.class_names), len(official.clips), official.notes) == (51, 6766, ())
    for split in (1, 2, 3):
        counts = Counter((clip.class_name, clip.subset(split)) for clip in official.clips)
        assert all(counts[name, "train"] == 70 and counts[name, "test"] == 30 for name in official.class_names)
        assert Counter(clip.subset(split) for clip in official.clips) == {"train": 3570, "test": 1530, None: 1666}


def test_the_class_order_is_that_of_the_known_label_map(official: Listing, shared_data: Path) -> None:
    known = (shared_data / "splits" / "other" / "mmaction2_hmdb51_label_map.txt").read_text().split()
    assert list(official.class_names) == known


@pytest.mark.parametrize(("number", "crossing", "held_out"), [(1, 133, 617), (2, 149, 566), (3, 144, 568)])
def test_sources_cross_between_classes_only_and_never_into_validation(
    official: Listing, number: int, crossing: int, held_out: int
) -> None:
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for clip in official.clips:
        groups[clip.id].add(clip.group)
    split = make_split(official.clips, SplitSpec(split=number))
    (note,) = split.notes
    assert note.startswith(f"{crossing} sources are on the official train list of one class and on the test")
    fit, validation, test = (
        {group for id_ in ids for group in groups[id_]} for ids in (split.fit, split.validation, split.test)
    )
    assert len(fit & test) == crossing
    assert not validation & (fit | test)
    assert (len(split.fit) + len(split.validation), len(split.test)) == (3570, 1530)
    assert len(split.validation) == held_out
    assert len({id_.split("/")[0] for id_ in split.validation}) == 51
