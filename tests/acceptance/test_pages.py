"""The pages of the documents, worked through as a reader would: every command in order, on a real service.

What is not run here says why, in the page itself: `tests/documents.py` describes how.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import optuna
import pytest

from hpo.client import Study
from tests.documents import DOCUMENTS, Block, blocks

from .conftest import Service, serving, tiny_spec, wait_for

_LONGEST: Final = ("docs/evaluate.md", "docs/tutorial.md", "README.md")
"""Pages that train; they begin first, where several processes share the pages. Each opens the test list of the same
videos, which is refused a second time: so each has a service of its own."""
PAGES: Final = tuple(
    name
    for name in (*_LONGEST, *(name for name in DOCUMENTS if name not in _LONGEST))
    if any(block.reason is None and block.elsewhere is None for block in blocks(name, "bash", "python"))
)
DONE: Final[Mapping[str, str]] = {
    "docs/checkpoints.md": "many-trials",
    "docs/finalists.md": "my-study",
    "docs/optimizer.md": "NAME",
    "docs/troubleshooting.md": "STUDY",
}
"""Pages that speak of a study that has ended, and its name."""
_PLACES: Final = re.compile(r"(?<![\w.])/(?=(?:data|mnt|tmp)/)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Somebody with an empty folder, in which /data, /mnt and /tmp of the pages are, and a service."""

    folder: Path
    service: Service

    def work_through(self, document: str) -> None:
        """Write the files of a page and run its commands, in their order; each must succeed."""
        for block in blocks(document, "bash", "python", "yaml"):
            if block.reason is None and block.elsewhere is None:
                self._do(block)

    def _do(self, block: Block) -> None:
        text = _PLACES.sub(f"{self.folder}/", block.as_run)
        if block.title is not None:
            (self.folder / block.title).write_text(text)
            return
        if block.language == "yaml":
            return  # a part of a spec, which test_documents.py checks
        lines = text if block.language == "bash" else f"python - <<'END'\n{text}END\n"
        done = self.service.shell(lines, folder=self.folder)
        assert done.returncode == 0, f"{block.place}\n{text}\n{done.stdout}\n{done.stderr}"

    def make(self, spec: dict[str, Any]) -> None:
        """Create a study."""
        with self.service.client() as client:
            client.create_study(spec)

    def tell(self, name: str, *, metrics: Mapping[str, str], trials: int) -> None:
        """Make a study whose trials compute some numbers, and run all of them."""
        self.make(
            {
                "name": name,
                "objectives": [{"metric": metric} for metric in metrics],
                "task": {"kind": "custom", "metrics": dict(metrics)},
                "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
                "optimizer": {"name": "random"},
                "budget": {"trials": trials},
            }
        )
        with self.service.client() as client, Study(client, name) as study:
            while (trial := study.ask()) is not None:
                x = float(trial.params["x"])
                study.tell(trial, dict(zip(metrics, (x, 1 - x * x), strict=False)))

    def clean_up(self) -> None:
        """Delete all studies."""
        with self.service.client() as client:
            for study in client.studies():
                if study["state"] in ("active", "paused"):
                    client.stop_study(study["name"])
                client.delete_study(study["name"])


@pytest.fixture
def reader(request: pytest.FixtureRequest, tiny_videos: Path) -> Iterator[Reader]:
    """A reader who has a small UCF101."""
    folder = Path(tempfile.mkdtemp(prefix="hpo-reader-"))
    folder.chmod(0o711)  # `hpo --home NEW` starts a Postgres below it, as another user where the tests run as root
    for place in ("data", "mnt"):
        shutil.copytree(tiny_videos, folder / place / "ucf101")
    (folder / "mnt" / "ckpt").mkdir()
    (folder / "service").mkdir(mode=0o711)
    if request.node.callspec.params["prepared"] in _LONGEST:
        with serving(folder / "service" / "home") as service:
            yield Reader(folder=folder, service=service)
    else:
        one = Reader(folder=folder, service=request.getfixturevalue("service"))
        yield one
        one.clean_up()
    shutil.rmtree(folder)


@pytest.fixture
def prepared(request: pytest.FixtureRequest, reader: Reader, tiny_videos: Path) -> str:
    """The document, once what it takes for given is there."""
    document = str(request.param)
    match document:
        case "docs/budgets.md":
            spec = tiny_spec(tiny_videos, "NAME")
            spec["task"]["epochs"] = 10
            reader.make(spec)
        case "docs/evaluate.md":
            _train(reader, tiny_spec(tiny_videos, "slowfast-ucf101", budget={"trials": 2}, checkpoints={"every": 1}))
            _give_videos(reader.folder, tiny_videos)
        case "docs/importing.md":
            reader.make(tiny_spec(tiny_videos, "slowfast-ucf101"))
            _search_elsewhere(reader.folder)
        case "docs/objectives.md":
            reader.tell("accuracy-and-latency", metrics={"top1": "maximize", "latency": "minimize"}, trials=18)
        case _ if document in DONE:
            reader.tell(DONE[document], metrics={"score": "maximize"}, trials=8)
        case _:
            pass
    return document


@pytest.mark.slow
@pytest.mark.timeout(1800)  # how long a page takes says how busy the machine is
@pytest.mark.parametrize("prepared", PAGES, indirect=True)
def test_the_commands_of_a_page_work(prepared: str, reader: Reader) -> None:
    reader.work_through(prepared)


def _train(reader: Reader, spec: dict[str, Any]) -> None:
    reader.make(spec)
    name = spec["name"]
    with reader.service.worker("--max-trials", str(spec["budget"]["trials"])), reader.service.client() as client:
        wait_for(lambda: client.study(name)["state"] == "completed", seconds=900)
    for trial, file in enumerate(("rgb.yaml", "flow.yaml")):
        done = reader.service.shell(f"hpo export {name} --trial {trial} -o {file}", folder=reader.folder)
        assert done.returncode == 0, done.stderr


def _give_videos(folder: Path, videos: Path) -> None:
    (folder / "clips").mkdir()
    some = sorted(videos.rglob("*.avi"))
    for video, name in zip(some, ("holiday.mp4", "match.mp4", "clips/one.avi"), strict=False):
        shutil.copy(video, folder / name)


def _search_elsewhere(folder: Path) -> None:
    """Write results of another program: a database of Optuna, and a table."""
    (folder / "runs.csv").write_text("learning_rate,model,accuracy\n0.01,r2plus1d_18,0.8\n0.02,r2plus1d_18,0.75\n")
    space = {
        "lr": optuna.distributions.FloatDistribution(1e-3, 0.1, log=True),
        "model": optuna.distributions.CategoricalDistribution(["slowfast_r18", "r2plus1d_18"]),
    }
    study = optuna.create_study(storage=f"sqlite:///{folder}/old.db", direction="maximize")
    params = {"lr": 0.03, "model": "r2plus1d_18"}
    study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=0.7))
