"""The audit of dependencies tells what was found from nobody having been asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "audit.py"
CLEAN = {"name": "good", "version": "1.0", "vulns": []}
WRONG = {"name": "bad", "version": "0.1", "vulns": [{"id": "CVE-2026-1", "fix_versions": ["0.2"]}]}
FORGOTTEN = {"name": "bad", "version": "0.1", "vulns": [{"id": "CVE-2026-2", "fix_versions": []}]}
UNKNOWN = {"name": "ours", "skip_reason": "not found"}
AUDITOR = """
import json, sys
report = {report!r}
(output,) = (word.partition("=")[2] for word in sys.argv if word.startswith("--output="))
(pins,) = (word.partition("=")[2] for word in sys.argv if word.startswith("--requirement="))
assert "==" in open(pins).read()
if report is None:
    sys.exit("Traceback\\nConnectionError: no such host")
open(output, "w").write(report)
sys.exit(1)
"""


def _audit(tmp_path: Path, report: str | None) -> subprocess.CompletedProcess[str]:
    """Run the script with an auditor that writes a report, or fails without one."""
    uv = tmp_path / "uv"
    uv.write_text(f"#!{sys.executable}\n{AUDITOR.format(report=report)}")
    uv.chmod(0o755)
    return _run(uv)


def _run(uv: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(uv), "auditor"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("found", "status", "sentence"),
    [
        ([CLEAN], 0, "1 packages were asked about, 0 vulnerabilities are known"),
        ([CLEAN, WRONG], 1, "bad 0.1: CVE-2026-1, fixed in 0.2"),
        ([FORGOTTEN], 1, "bad 0.1: CVE-2026-2, fixed in no version yet"),
        ([CLEAN, UNKNOWN], 0, "not known to the database: ours"),
    ],
)
def test_what_is_known_decides(tmp_path: Path, found: list[dict[str, Any]], status: int, sentence: str) -> None:
    done = _audit(tmp_path, json.dumps({"dependencies": found, "fixes": []}))
    assert (done.returncode, done.stderr) == (status, "")
    assert sentence in done.stdout.splitlines()


@pytest.mark.parametrize("report", [None, "", "{}"])
def test_nobody_asked_is_neither_good_nor_bad(tmp_path: Path, report: str | None) -> None:
    done = _audit(tmp_path, report)
    assert (done.returncode, done.stdout) == (75, "")
    reason = "ConnectionError: no such host" if report is None else "the auditor ended with 1 and said nothing"
    assert done.stderr == f"the database of known vulnerabilities could not be asked: {reason}\n"


def test_an_auditor_that_cannot_be_started_is_a_sentence(tmp_path: Path) -> None:
    done = _run(tmp_path / "nothing")
    assert done.returncode == 75
    assert "nothing cannot be started (No such file or directory)" in done.stderr
