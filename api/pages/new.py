"""The page that makes a study from a spec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi.responses import HTMLResponse

from hpo.errors import SpecIssue

from .frame import Viewer, page

EXAMPLE: Final = """\
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
"""


def new_page(
    *,
    viewer: Viewer,
    text: str = EXAMPLE,
    source: str | None = None,
    lines: Sequence[str] = (),
    issues: Sequence[SpecIssue] = (),
    status: int = 200,
) -> HTMLResponse:
    """Return the page.

    Args:
        text: what stands in the form.
        source: the study whose spec it began with.
        lines: what the study would be, once it was checked.
        issues: what is wrong with the spec, field by field.
    """
    return page("new.html", viewer=viewer, status=status, text=text, source=source, lines=lines, issues=issues)
