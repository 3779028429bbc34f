"""What all pages share: the templates, the frame around them, and a policy that lets in only what this server sends.

Templates escape what they show; characters that would reorder or hide what stands beside them become visible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from hpo.activity import duration
from hpo.plain_text import plain
from hpo.results.evidence import spread_is_known

from . import assets, words

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "ago": words.ago,
    "count": words.count,
    "duration": duration,
    "hours": words.hours,
    "moment": words.moment,
    "percent": words.percent,
    "shell": words.shell,
    "shown": words.shown,
    "size": words.size,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Who looks at a page."""

    name: str
    may_steer: bool
    """Whether the page has buttons for them."""
    form_token: str
    """What a form of the page carries, to show that the page is ours."""
    has_dashboard: bool = True
    """Whether there is a dashboard to link to."""


def page(
    template: str,
    *,
    viewer: Viewer | None = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    policy: str = POLICY,
    **context: Any,
) -> HTMLResponse:
    """Return a page made from a template.

    Args:
        viewer: whose page it is; None where nobody is logged in.
        context: what the template shows.
    """
    html = _environment().get_template(template).render(viewer=viewer, status=status, **context)
    return HTMLResponse(html, status_code=status, headers={"Content-Security-Policy": policy, **(headers or {})})


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    environment.filters["coded"] = _coded
    environment.globals["asset"] = assets.url
    environment.globals["spread"] = _spread
    return environment


def _finalize(value: Any) -> Any:
    if value is None:
        return ""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _coded(sentence: str) -> Markup:
    """Return a sentence in which what stands between backticks, such as a command, is drawn as code."""
    parts = plain(sentence).split("`")
    if len(parts) % 2 == 0:  # one is left over: it is part of a name
        return escape(plain(sentence))
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


def _spread(value: float, sd: float) -> str:
    """Return a standard deviation as it stands behind its value; nothing where it says nothing."""
    return f"± {sd:.2g}" if spread_is_known(value, sd) else ""
