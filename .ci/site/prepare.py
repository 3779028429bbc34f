"""Put the pages of the site into a folder: `prepare.py FOLDER`, as `make site` does before MkDocs renders them.

On disk the documents link to each other and to the code as files of one checkout, so that they can be read there. On
the site, README.md, CONTRIBUTING.md and others become pages beside those of docs/, some pages are made from the code,
and a link to a file that is no page becomes its name. The folder holds plain Markdown: another program could render it.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import sys
from collections.abc import Set
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
BESIDE_DOCS: Final = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting-a-vulnerability.md",
    "CHANGELOG.md": "changelog.md",
    "docker/README.md": "docker.md",
    "benchmarks/optimizer/README.md": "optimizer-benchmark.md",
}
"""Documents outside docs/, and the page that each becomes."""
GENERATED: Final = ("commands", "http_api", "models", "python_api", "study_spec")
"""Functions of `generated`, each for a page of reference/."""
_LINK: Final = re.compile(r"(!?)\[((?:[^][]|\[[^]]*\])*)\]\(([^)\s]+)\)")
_LIST_AFTER_TEXT: Final = re.compile(r"^((?![-*|>#]|\d+\. | {2,}).+:)\n(- )", re.MULTILINE)


class DeadLinkError(Exception):
    """A document links to a file that does not exist."""


def prepare(folder: Path) -> None:
    """Write all pages of the site into `folder`, which is emptied first.

    Raises:
        DeadLinkError: a document links to a file of the checkout that is not there.
    """
    import generated  # needs packages that only the site needs; links are mended without them

    shutil.rmtree(folder, ignore_errors=True)
    pages = {**BESIDE_DOCS, **{f"docs/{name}": name for name in _under_docs("*.md")}}
    made = {f"reference/{name.replace('_', '-')}.md": getattr(generated, name)() for name in GENERATED}
    known = {*pages.values(), *made, *_under_docs("*")}
    for name in _under_docs("*"):
        _write(folder / name, (CHECKOUT / "docs" / name).read_bytes())
    for source, page in pages.items():
        text = (CHECKOUT / source).read_text()
        _write(folder / page, for_the_site(text, source=source, page=page, known=known).encode())
    for page, text in made.items():
        _write(folder / page, text.encode())


def for_the_site(text: str, *, source: str, page: str, known: Set[str]) -> str:
    """Return a document with links that work on the site, and lists that Python-Markdown takes for lists.

    `source` is its path in the checkout, `page` that on the site, `known` has the paths of all pages and pictures.

    Raises:
        DeadLinkError: it links to a file of the checkout that is not there.
    """

    def mended(found: re.Match[str]) -> str:
        is_picture, words, target = found.groups()
        path, hash_sign, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return found[0]
        leads_to = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        on_site = BESIDE_DOCS.get(leads_to) or leads_to.removeprefix("docs/")
        if on_site in known:
            relative = posixpath.relpath(on_site, posixpath.dirname(page) or ".")
            return f"{is_picture}[{words}]({relative}{hash_sign}{anchor})"
        if not (CHECKOUT / leads_to).exists():
            raise DeadLinkError(f"{source} links to {target}, and there is no {leads_to}")
        return words

    return _LIST_AFTER_TEXT.sub(r"\1\n\n\2", _LINK.sub(mended, text))


def _under_docs(pattern: str) -> list[str]:
    root = CHECKOUT / "docs"
    return sorted(str(path.relative_to(root)) for path in root.rglob(pattern) if path.is_file())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


if __name__ == "__main__":
    try:
        prepare(Path(sys.argv[1]))
    except DeadLinkError as error:
        sys.exit(str(error))
