"""Which function a worker runs, and what is known of its source."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpo.errors import SetupError
from workers.functions.entry import Entry

LOAD = """
import sys
from workers.process import template  # what the process of a function has imported by then
from workers.functions.entry import Entry, load
from hpo.errors import HpoError
try:
    found = load(Entry.parse(sys.argv[1]))
    print(found.name, found.sha256, found.call(None))
except HpoError as error:
    print(error)
"""


def _loaded(text: str, folder: Path) -> str:
    command = [sys.executable, "-P", "-c", LOAD, text]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_a_function_of_a_file_and_of_a_module_is_found_beside_modules_called_like_ours(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("ANSWER = 42\n")
    (tmp_path / "mine.py").write_text("import models\ndef train(trial): return models.ANSWER\n")
    assert _loaded(f"{tmp_path}/mine.py:train", tmp_path).endswith(" 42")
    first = _loaded("mine:train", tmp_path)
    assert first.endswith(" 42")
    (tmp_path / "models.py").write_text("ANSWER = 43\n")
    changed = _loaded("mine:train", tmp_path)
    assert changed.split()[1] != first.split()[1], "the source of what it imports counts too"


def test_a_script_that_calls_tune_is_imported_up_to_there(tmp_path: Path) -> None:
    script = "import hpo\ndef train(trial): return 1\nhpo.tune(train, space={}, objective='x')\nprint('after')\n"
    (tmp_path / "script.py").write_text(script)
    assert _loaded(f"{tmp_path}/script.py:train", tmp_path).endswith(" 1")
    (tmp_path / "late.py").write_text(
        "import hpo\nhpo.tune(max, space={}, objective='x')\ndef train(trial): return 1\n"
    )
    assert "no 'train' in late above its call of hpo.tune" in _loaded(f"{tmp_path}/late.py:train", tmp_path)


PORTABLE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import helper
from hpo.functions.portable import write_function
print(write_function(lambda trial: helper.ANSWER, Path(sys.argv[1]) / "written"))
"""


def test_a_helper_module_of_a_function_of_tune_counts_too(tmp_path: Path) -> None:
    versions = []
    for answer in (4, 42):  # of other lengths: Python takes bytecode of the same second and length for that of the file
        (tmp_path / "helper.py").write_text(f"ANSWER = {answer}\n")
        command = [sys.executable, "-P", "-c", PORTABLE, str(tmp_path)]
        written = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        loaded = _loaded(written, tmp_path).split()
        assert loaded[-1] == str(answer)
        versions.append(loaded[-2])
    assert versions[0] != versions[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mine", "write MODULE:FUNCTION"),
        ("mine:", "write MODULE:FUNCTION"),
        ("/nowhere/mine.py:train", "there is no file /nowhere/mine.py"),
    ],
)
def test_what_names_no_function_is_refused(text: str, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        Entry.parse(text)


def test_a_missing_function_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("train = 3\n")
    assert "there is no 'trian' in mine" in _loaded("mine:trian", tmp_path)
    assert "train is a int, not a function" in _loaded("mine:train", tmp_path)
