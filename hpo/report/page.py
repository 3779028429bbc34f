"""The HTML of a report: one file with everything in it, readable without a network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Final

import yaml

from ..optimizer.importance import explained_sentence
from ..trial import CUSTOM, Params
from . import figures, words
from .figures import Figure
from .findings import Effects, Findings
from .material import Material
from .scales import shown

MOST_FAILURES: Final = 50
"""Failed trials that are listed one by one; all are counted."""
_MESSAGE_CHARACTERS: Final = 300

_STYLE: Final = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: white; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem; }
h1 { font-size: 1.7rem; margin: 0; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 0.4rem; border-bottom: 1px solid #ddd; padding-bottom: 0.2rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0.2rem; }
p, ul { margin: 0.5rem 0; max-width: 48rem; }
.made { color: #666; font-size: 0.875rem; margin-top: 0; }
.lead { font-size: 1.125rem; font-weight: 600; }
pre { background: #f3f4f6; padding: 0.7rem 1rem; border-radius: 6px; font-size: 0.85rem; }
pre { overflow-wrap: anywhere; white-space: pre-wrap; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.25rem 0.9rem 0.25rem 0; border-bottom: 1px solid #eee; vertical-align: top; }
td.wide { overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0.5rem; }
figure { margin: 0.4rem 0; min-width: 0; }
figcaption { color: #555; font-size: 0.875rem; }
@media (max-width: 40rem) { body { padding: 0.8rem; } table { display: block; overflow-x: auto; } }
@media print { body { max-width: none; } figure, table { break-inside: avoid; } }
"""
_DRAW: Final = """
const hasWebGL = document.createElement("canvas").getContext("webgl") !== null;
for (const box of document.querySelectorAll("[data-figure]")) {
  const figure = JSON.parse(document.getElementById(box.dataset.figure).textContent);
  if (figure.data.some(trace => trace.type === "parcoords") && !hasWebGL) {
    box.textContent = "This plot needs WebGL, which this browser does not have.";
    continue;
  }
  Plotly.newPlot(box, figure.data, figure.layout,
    {responsive: true, displaylogo: false, toImageButtonOptions: {format: "svg", filename: box.dataset.figure}});
}
"""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
"""Nothing may be loaded from anywhere, whatever the plots contain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page with an anchor."""

    id: str
    title: str
    body: str


def render(material: Material, findings: Findings, script: str) -> str:
    """Return the page; `script` is the source of plotly.js."""
    parts_of_page = sections(material, findings)
    title = escape(f"Study {material.name}")
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f'<h1>{title}</h1><p class="made">Report made {made} by video-hpo.</p>',
        *(f'<section id="{one.id}"><h2>{escape(one.title)}</h2>\n{one.body}</section>' for one in parts_of_page),
        f"<script>{script}</script><script>{_DRAW}</script>",
        "</body></html>",
    ]
    return "\n".join(parts)


def sections(material: Material, findings: Findings) -> list[Section]:
    """Return the parts of a report, in their order."""
    return [
        Section(id="study", title="The study", body=_paragraph(words.study(material))),
        Section(id="answer", title="The answer", body="".join(_answer(material))),
        Section(id="importance", title="Which parameters matter", body="".join(_importance(findings))),
        Section(
            id="effects", title="How the most important parameters act", body="".join(_effects(material, findings))
        ),
        Section(id="model", title="Is the model to be believed?", body="".join(_model(material, findings))),
        Section(id="progress", title="Progress", body="".join(_progress(material))),
        *([] if _runs_a_function(material) else [_classes(material)]),
        Section(id="cost", title="What it cost", body="".join(_cost(material))),
        Section(id="parallel", title="All trials side by side", body="".join(_parallel(material))),
        Section(id="checks", title="What to know before going on", body=_checks(material, findings)),
        Section(id="failures", title="Failures", body="".join(_failures(material))),
        Section(id="repeat", title="How to repeat it", body="".join(_repeat(material))),
    ]


def _runs_a_function(material: Material) -> bool:
    """Return whether the study is of a function of the user's, which has no classes and which only its workers run."""
    return material.spec.task.kind == CUSTOM


def _classes(material: Material) -> Section:
    return Section(id="confusion", title="Which classes are confused", body="".join(_confusion(material)))


def _answer(material: Material) -> Iterator[str]:
    evidence = material.evidence
    if evidence is None or material.answer is None or material.best is None:
        yield _paragraph("No trial has a result that keeps the constraints yet.")
        return
    first, *others = evidence.lines()
    yield f'<p class="lead">{escape(first)}</p>'
    yield _list(others)
    yield f"<h3>The best configuration (trial {material.study['best']['number']})</h3>"
    yield _table(["parameter", "value"], [[name, shown(value)] for name, value in material.best.items()])
    further = "" if _runs_a_function(material) else ", and `hpo train` trains it again"
    yield _paragraph(f"`hpo export {material.name}` writes it to a file{further}.")
    if len(material.objectives) > 1:
        yield "<h3>The front</h3>"
        yield _paragraph("No other configuration is expected to be better in one objective and as good in the others.")
        yield _figure("front", figures.trade_off(material), "Last values of the trials.")


def _importance(findings: Findings) -> Iterator[str]:
    if findings.missing is not None:
        yield _no_model(findings)
        return
    for metric, effects in findings.effects.items():
        yield f"<h3>{escape(metric)}</h3>"
        yield _paragraph(explained_sentence(metric, effects.explained))
        if effects.explained is None:
            continue
        caption = "Total-order Sobol indices of the model, as shares of their sum, with intervals of 90 %."
        yield _figure(f"importance-{metric}", figures.importance(metric, effects.importances), caption)
        rows = [[row.parameter, f"{row.share:.0%}", row.interval] for row in effects.importances]
        yield _table(["parameter", f"share of {metric}", "90 % interval"], rows)
        directions = [
            f"{row.parameter}: {row.direction(metric)}" for row in effects.importances if row.trend is not None
        ]
        if directions:
            yield _paragraph("On average over the space:")
            yield _list(directions)
    if findings.used < findings.outcomes:
        yield _paragraph(
            f"The models are fitted to {findings.used} of {findings.outcomes} trials: the best ones, and an even"
            " selection of the others."
        )


def _effects(material: Material, findings: Findings) -> Iterator[str]:
    if findings.missing is not None:
        yield _no_model(findings)
        return
    yield _paragraph("Predictions of the model, with all other parameters as in the best configuration.")
    for metric, effects in findings.effects.items():
        yield f"<h3>{escape(metric)}</h3>" + _of_metric(material, metric, effects)


def _of_metric(material: Material, metric: str, effects: Effects) -> str:
    parts = [
        _figure(f"slice-{metric}-{name}", figures.slice_of(material, metric, name, found), f"{metric} over {name}")
        for name, found in effects.slices.items()
    ]
    if effects.contour is not None:
        names, found = effects.contour
        drawing = figures.contour_of(material, metric, names, found)
        parts.append(_figure(f"contour-{metric}", drawing, f"{metric} over {names[0]} and {names[1]}; dots are trials"))
    return f'<div class="pair">{"".join(parts)}</div>'


def _model(material: Material, findings: Findings) -> Iterator[str]:
    if findings.missing is not None:
        yield _no_model(findings)
        return
    yield _paragraph("Each outcome is predicted by a model that has not seen it.")
    parts = [
        _figure(
            f"validation-{metric}", figures.cross_validation(material, metric, found), words.prediction(metric, found)
        )
        for metric, found in findings.validations.items()
    ]
    yield f'<div class="pair">{"".join(parts)}</div>'


def _progress(material: Material) -> Iterator[str]:
    if not material.ended:
        yield _paragraph("No trial has ended with a result yet.")
    else:
        yield _figure(
            "progress", figures.progress(material), "Last value of each trial, in the order of their numbers."
        )
    curves = figures.learning_curves(material)
    if curves["data"]:
        shown_curves = len(curves["data"])
        caption = f"Learning curves of {shown_curves} trials; the best configuration is green."
        yield _figure("curves", curves, caption)


def _confusion(material: Material) -> Iterator[str]:
    found = material.confusion
    if found is None:
        yield _paragraph("Of the best trial, no confusion matrix is known.")
        return
    word = material.spec.task.clip_word
    yield _paragraph(words.classes(found, word))
    caption = (
        f"Rows are classes, columns what trial {material.study['best']['number']} took their validation {word}s for."
    )
    yield _figure("confusion", figures.confusion(found), caption)
    rows = [[true, said, f"{count} of {videos}"] for true, said, count, videos in words.most_confused(found)]
    if rows:
        yield _table(["class", "taken for", f"{word}s"], rows)


def _cost(material: Material) -> Iterator[str]:
    yield _table(["", "GPU hours", "share"], words.costs(material.study))
    yield _paragraph(words.saving(material.study))


def _parallel(material: Material) -> Iterator[str]:
    if not material.ended:
        yield _paragraph("No trial has ended with a result yet.")
        return
    caption = "A line per trial. Drag along an axis to select trials; drag its name to move it."
    yield _figure("parallel", figures.parallel(material), caption)


def _checks(material: Material, findings: Findings) -> str:
    found = words.checks(material, findings.validations)
    if findings.missing is not None:
        found.append(_sentence(findings.missing))
    return _list(found) if found else _paragraph("Nothing stands out.")


def _failures(material: Material) -> Iterator[str]:
    if not material.failed:
        yield _paragraph("No trial failed.")
        return
    yield _paragraph(f"{words.counted(material.failed, 'trial')} failed: {words.failures(material)}.")
    rows = [
        [str(r.number), str(r.failure_kind), (r.failure_message or "")[:_MESSAGE_CHARACTERS], _params(r.params)]
        for r in material.failed[-MOST_FAILURES:]
    ]
    yield _table(["trial", "kind", "message", "configuration"], rows)


def _repeat(material: Material) -> Iterator[str]:
    if material.best is not None and _runs_a_function(material):
        yield _list(
            [
                f"`hpo export {material.name} -o best.yaml` writes the best configuration, its checkpoint, and the "
                "name and the hash of the function.",
                f"`hpo finalists {material.name}` has workers run the best configurations again, with fresh seeds.",
            ]
        )
    elif material.best is not None:
        yield _list(
            [
                f"`hpo export {material.name} -o best.yaml` writes the best configuration and its checkpoint.",
                "`hpo train best.yaml` trains it again and compares the score.",
                "`hpo evaluate best.yaml --final` scores it on the sealed test list, once.",
            ]
        )
    yield "<h3>The spec</h3>"
    spec = material.spec.model_dump(mode="json", exclude_defaults=True)
    yield f"<pre>{escape(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True))}</pre>"


def _params(params: Params) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in params.items())


def _no_model(findings: Findings) -> str:
    return _paragraph(_sentence(findings.missing or ""))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _paragraph(text: str) -> str:
    return f"<p>{_coded(text)}</p>"


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_coded(line)}</li>' for line in lines)}</ul>"


def _coded(text: str) -> str:
    """Return text with what is between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    lines = ["".join(f'<td class="wide">{escape(cell)}</td>' for cell in row) for row in rows]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _figure(name: str, figure: Figure, caption: str) -> str:
    # JSON in a script element ends at the first `</`, whatever is around it.
    data = json.dumps(figure, allow_nan=False).replace("<", "\\u003c")
    identifier = escape(f"figure-{name}")
    return (
        f'<figure><div data-figure="{identifier}"></div><figcaption>{_coded(caption)}</figcaption>'
        f'<script type="application/json" id="{identifier}">{data}</script></figure>'
    )
