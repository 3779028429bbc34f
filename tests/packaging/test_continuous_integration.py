"""`.ci/run` names tests, which may be renamed: pytest says nothing of a test to leave out that is not there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPT = CHECKOUT / ".ci" / "run"


WITH_SIGINT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # who runs the tests may ignore it
os.execv(sys.argv[1], sys.argv[1:])
"""


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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_what_a_stage_has_started_and_the_summary_is_printed(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    make = tmp_path / "make"
    # A shell has what it starts in the background ignore SIGINT.
    make.write_text("#!/bin/sh\nexec 2>&1\nsleep 60 &\necho begun\nwait\n")
    make.chmod(0o755)
    command = [sys.executable, "-c", WITH_SIGINT, str(SCRIPT)]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "begun\n" in process.stdout  # reads up to there
            process.send_signal(number)
            said = process.stdout.read()  # until `sleep` has ended, too, which could write
        finally:
            process.kill()
    assert process.returncode == status
    assert re.search(r"=== summary\ninstall +\d+ min \d\d s  interrupted\n$", said), said
    assert [path.name for path in tmp_path.iterdir()] == ["make"], "the scratch folder is removed"
