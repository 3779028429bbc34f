"""The page of the data sets: which studies use each, what workers have found in it, and which workers lack it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fastapi.responses import HTMLResponse

from hpo.store.data_sets import Classes, DataSet, Version
from hpo.store.studies import StudyRow
from hpo.store.waiting import MissingFiles

from . import paths
from .frame import Viewer, page

MOST_DATA_SETS: Final = 50
"""Those of the latest studies are shown; the others are counted."""
MOST_STUDIES: Final = 20
MOST_VERSIONS: Final = 5
MOST_WORKERS: Final = 12
VERSION_CHARACTERS: Final = 12
_REASONS: Final[Mapping[str, str]] = {
    "missing": "missing",
    "empty": "empty",
    "corrupt": "damaged",
    "truncated": "cut off",
    "short": "too short",
}
"""What is wrong with a video, as a scan of the data set calls it, and as the page does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSetMaterial:
    """What the store knows of the data sets of some studies; what is by study is by its id."""

    studies: Sequence[StudyRow]
    seen: Mapping[int, DataSet]
    versions: Sequence[Version]
    """The latest used first."""
    classes: Mapping[int, Classes]
    trained_by: Mapping[int, Mapping[str, datetime]]
    """Workers that have trained lately, and when they were last seen."""
    missing: Mapping[str, Sequence[MissingFiles]]
    """What workers have not found, by their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A study that uses the data set."""

    study: StudyRow
    address: str
    split: str
    seen: DataSet | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenVersion:
    """A version of the data set, over all studies."""

    short: str
    trials: int
    last: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """A worker that has not found the data set, or weights that a study of it needs."""

    worker: str
    study: str
    address: str
    message: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A data set as the page shows it."""

    root: str
    anchor: str
    layouts: Sequence[str]
    users: Sequence[User]
    users_left_out: int
    versions: Sequence[SeenVersion]
    versions_left_out: int
    clip_word: str
    """What the latest study calls one of it: `video` or `image`."""
    seen: DataSet | None
    """As the latest study has found it: which clips are damaged does not depend on the split."""
    reasons: str
    classes: Classes | None
    workers: Sequence[str]
    """Those that have trained on it lately, the last one first."""
    workers_left_out: int
    lacking: Sequence[Lacking]


def data_sets_page(material: DataSetMaterial, *, viewer: Viewer) -> HTMLResponse:
    """Return the page."""
    by_root: dict[str, list[StudyRow]] = {}
    for study in sorted(material.studies, key=lambda study: study.created_at, reverse=True):
        if (data_set := data_set_of(study)) is not None:
            by_root.setdefault(str(data_set.root), []).append(study)
    shown = [_shown(root, using, material) for root, using in list(by_root.items())[:MOST_DATA_SETS]]
    return page("data_sets.html", viewer=viewer, data_sets=shown, left_out=len(by_root) - len(shown))


def data_set_of(study: StudyRow) -> Any | None:
    """Return what the spec of a study says of its data set; None for a kind of task that has none."""
    return getattr(study.spec.task, "dataset", None)


def anchor(root: object) -> str:
    """Return the place of a data set on the page, from its folder."""
    return f"data-{hashlib.sha256(str(root).encode()).hexdigest()[:10]}"


def _shown(root: str, using: Sequence[StudyRow], material: DataSetMaterial) -> Shown:
    ids, names = {study.id for study in using}, {study.name for study in using}
    known = next((material.seen[study.id] for study in using if study.id in material.seen), None)
    versions = _versions([version for version in material.versions if version.study_id in ids])
    lately: dict[str, datetime] = {}
    for study_id in ids:
        for worker, last in material.trained_by.get(study_id, {}).items():
            lately[worker] = max(last, lately.get(worker, last))
    return Shown(
        root=root,
        anchor=anchor(root),
        layouts=sorted({str(found.name) for study in using if (found := data_set_of(study)) is not None}),
        users=[_user(study, material.seen.get(study.id)) for study in using[:MOST_STUDIES]],
        users_left_out=max(len(using) - MOST_STUDIES, 0),
        versions=versions[:MOST_VERSIONS],
        versions_left_out=max(len(versions) - MOST_VERSIONS, 0),
        clip_word=using[0].spec.task.clip_word,
        seen=known,
        reasons="" if known is None else _reasons(known),
        classes=next((material.classes[study.id] for study in using if study.id in material.classes), None),
        workers=sorted(lately, key=lambda worker: lately[worker], reverse=True)[:MOST_WORKERS],
        workers_left_out=max(len(lately) - MOST_WORKERS, 0),
        lacking=[
            Lacking(
                worker=worker,
                study=one.study,
                address=paths.of_study(one.study),
                message=one.message,
                until=one.until,
            )
            for worker, all_ in sorted(material.missing.items())
            for one in all_
            if one.study in names
        ][:MOST_WORKERS],
    )


def _user(study: StudyRow, seen: DataSet | None) -> User:
    found: Any = data_set_of(study)
    how = {
        "groups": f"whole groups held out ({found.held_out})",
        "kfold": f"fold {found.fold} of {found.folds}",
        "official": "official validation list",
        "random": f"clips drawn at random ({found.held_out})",
    }
    return User(
        study=study,
        address=paths.of_study(study.name),
        split=f"split {found.split}, {how.get(found.validation, found.validation)}",
        seen=seen,
    )


def _versions(found: Sequence[Version]) -> list[SeenVersion]:
    """Return each version once, the latest used first."""
    by_version: dict[str, list[Version]] = {}
    for one in found:
        by_version.setdefault(one.version, []).append(one)
    return [
        SeenVersion(
            short=version[:VERSION_CHARACTERS],
            trials=sum(one.trials for one in all_),
            last=max(one.last for one in all_),
        )
        for version, all_ in by_version.items()
    ]


def _reasons(seen: DataSet) -> str:
    """Return why videos are left out, as `12 damaged, 3 missing`; an empty text where that is not known."""
    often = sorted(seen.reasons.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {_REASONS.get(status, status)}" for status, count in often)
