"""`.ci/run` names tests, which may be renamed: pytest says nothing of a test to leave out that is not there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPT = CHECKOUT / ".ci" / "run"


def _array(name: str) -> list[str]:
    found = re.search(rf"^{name}=\((.*?)\)$", SCRIPT.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, name
    lines = (line.partition("#")[0] for line in found[1].splitlines())
    return " ".join(lines).split()


def test_every_test_that_is_left_to_a_release_is_there() -> None:
    left_out = _array("release_only")
    assert len(left_out) > 1
    for place in left_out:
        file, _, function = place.partition("::")
        assert f"def {function or 'test_'}" in (CHECKOUT / file).read_text(), place


def test_every_folder_of_slow_tests_is_there() -> None:
    for folder in _array("slow"):
        assert (CHECKOUT / folder).is_dir(), folder


def test_the_script_is_one_that_bash_understands() -> None:
    subprocess.run(["/bin/bash", "-n", SCRIPT], check=True)
