"""The page that makes a study from a spec: fields for the usual choices, beside the text that says all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fastapi.responses import HTMLResponse

from hpo.errors import SpecError, SpecIssue
from hpo.service.creation import MOST_SPEC_BYTES
from hpo.spec.editing import read_document

from . import spec_fields
from .frame import Viewer, page

Kind = Literal["video", "image", "custom"]

EXAMPLES: Final[Mapping[Kind, str]] = {
    "video": """\
name: my-study
objectives:
  - {metric: val_top1, direction: maximize}
task:
  dataset: {name: auto, root: /data/videos}   # a folder that the workers reach
  epochs: 20
  base: {model: r2plus1d_18, batch_size: 16, clip: {frames: 16, stride: 2, size: 112}}
space:
  lr: {type: float, low: 1.0e-4, high: 0.1, log: true}
  weight_decay: {type: float, low: 1.0e-6, high: 1.0e-2, log: true}
  dropout: {type: float, low: 0.0, high: 0.8}
early_stopping: {name: asha, min_epochs: 3, reduction: 3}
budget: {trials: 40}
""",
    "image": """\
name: my-study
objectives:
  - {metric: val_top1, direction: maximize}
task:
  kind: image
  dataset: {root: /data/images}   # a folder of class folders that the workers reach
  epochs: 20
  base: {model: resnet18, batch_size: 32, clip: {size: 224}}
space:
  lr: {type: float, low: 1.0e-4, high: 0.1, log: true}
  weight_decay: {type: float, low: 1.0e-6, high: 1.0e-2, log: true}
  dropout: {type: float, low: 0.0, high: 0.8}
early_stopping: {name: asha, min_epochs: 3, reduction: 3}
budget: {trials: 40}
""",
    "custom": """\
name: my-study
objectives:
  - {metric: score, direction: maximize}
task:
  kind: custom   # workers are started with --entry FILE.py:FUNCTION
  epochs: 10     # the most that a trial reports; 1 for a function without epochs
  metrics: {score: maximize}
space:
  lr: {type: float, low: 1.0e-4, high: 0.1, log: true}
  width: {type: int, low: 2, high: 64}
  activation: {type: categorical, choices: [relu, gelu, tanh]}
early_stopping: {name: asha, min_epochs: 2, reduction: 3}
budget: {trials: 40}
""",
}
"""What the form begins with, by the kind of the task."""
MOST_FOLDERS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the form offers."""

    folders: Sequence[str] = ()
    """Data sets that other studies name."""
    models: Sequence[str] = ()
    """The names of the zoo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found out about a spec."""

    issues: Sequence[SpecIssue] = ()
    """What is wrong with it, field by field."""
    is_refused: bool = False
    """Whether it was to be checked or stored, and not only looked at while it is written."""
    lines: Sequence[str] = ()
    """What the study would be, once it was checked."""
    status: int = 200

    @property
    def sentence(self) -> str:
        """The same in one sentence."""
        count = len(self.issues)
        if not count:
            return "Nothing is wrong with the spec."
        return f"{'One thing is' if count == 1 else f'{count} things are'} wrong with the spec."


def new_page(
    text: str, *, viewer: Viewer, known: Known, source: str | None = None, verdict: Verdict | None = None
) -> HTMLResponse:
    """Return the page; the fields show what stands in the text.

    Args:
        text: the spec as it stands in the form.
        source: the study whose spec it began with.
        verdict: None where nobody has looked at the spec yet.
    """
    said = verdict or Verdict()
    groups, elsewhere = spec_fields.said_beside(fields_of(text, known), said.issues)
    return page(
        "new.html",
        viewer=viewer,
        status=said.status,
        text=text,
        source=source,
        groups=groups,
        elsewhere=elsewhere,
        places={issue: one.id for group in groups for one in group.fields for issue in one.issues},
        verdict=verdict,
        prefix=spec_fields.PREFIX,
        before=spec_fields.BEFORE,
    )


def fields_of(text: str, known: Known) -> tuple[spec_fields.Group, ...]:
    """Return the fields of a text; none where it cannot be read, or is longer than a spec may be."""
    if len(text.encode()) > MOST_SPEC_BYTES:
        return ()  # before time is spent on it: it is refused anyway
    try:
        document = read_document(text)
    except SpecError:
        return ()
    return spec_fields.groups_of(document, folders=known.folders[:MOST_FOLDERS], models=known.models)


def with_fields(text: str, form: Mapping[str, str], known: Known) -> str:
    """Return the text with what was changed in the fields of a posted form since they were shown.

    Raises:
        SpecError: a changed field has no place in the text.
    """
    groups = fields_of(text, known)
    return spec_fields.written(text, groups, spec_fields.changed(groups, form))
