"""A study cannot have a worker read any folder of its machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from data import DatasetNotFoundError, DatasetSpec
from hpo.trial import Fault
from workers.training.data_roots import check_roots
from workers.training.faults import fault_of


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A folder with `allowed`, in which `link` leads to `private` beside it."""
    for name in ("allowed/set", "private"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "allowed" / "link").symlink_to(tmp_path / "private")
    return tmp_path


@pytest.mark.parametrize("root", ["allowed", "allowed/set", "allowed/absent", "other/set"])
def test_what_is_below_a_root_is_read(places: Path, root: str) -> None:
    check_roots(DatasetSpec(root=str(places / root)), [places / "allowed", places / "other"])


@pytest.mark.parametrize("root", ["private", "allowed/link", "allowed/../private", "allowed-too", ""])
def test_any_other_place_is_refused(places: Path, root: str) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"this worker does not read .* --data-root") as caught:
        check_roots(DatasetSpec(root=str(places / root)), [places / "allowed"])
    assert fault_of(caught.value) is Fault.FILES, "another worker may have it"


@pytest.mark.parametrize("root", ["s3://mine/sets", "s3://mine/sets/ucf101"])
def test_an_address_that_somebody_allowed_is_read(places: Path, root: str) -> None:
    check_roots(DatasetSpec(root=root), [places], ["s3://mine/sets"])
    check_roots(DatasetSpec(root=root), None, ["gs://another", "s3://mine/sets/"])


@pytest.mark.parametrize(
    "root", ["s3://mine", "s3://mine/sets-of-others", "http://169.254.169.254/latest", "file:///etc"]
)
@pytest.mark.parametrize("anywhere", [True, False])
def test_no_other_address_is_asked_even_by_a_worker_that_reads_any_folder(
    places: Path, root: str, anywhere: bool
) -> None:
    roots = None if anywhere else [places, Path("/")]
    with pytest.raises(DatasetNotFoundError, match=rf"nobody has allowed that address here: .* --data-root {root}"):
        check_roots(DatasetSpec(root=root), roots, ["s3://mine/sets"])


def test_so_are_the_weights_of_the_flow(places: Path) -> None:
    spec = DatasetSpec(root=str(places / "allowed"), flow="raft", flow_weights=str(places / "private" / "raft.pth"))
    with pytest.raises(DatasetNotFoundError, match=r"raft\.pth"):
        check_roots(spec, [places / "allowed"])
    check_roots(spec, None)
