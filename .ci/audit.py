"""Ask a database of known vulnerabilities about the pinned versions: `audit.py UV AUDITOR`, as `make audit` does.

The exit status is 0 when none is known, 1 when some are (they are printed), and 75 when nobody could be asked, so that
a network that is away is never taken for either.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

PINS: Final = Path(__file__).resolve().parents[1] / "constraints.txt"
NOT_ASKED: Final = 75
"""EX_TEMPFAIL of sysexits.h."""
MOST_SECONDS: Final = 600.0
OPTIONS: Final = (
    "--no-deps",
    "--disable-pip",
    "--progress-spinner=off",
    "--vulnerability-service=osv",
    "--format=json",
)


class NotAskedError(Exception):
    """Nobody could be asked, and why."""


def main(arguments: Sequence[str]) -> int:
    """Return the exit status."""
    try:
        return _judge(_ask(*arguments))
    except NotAskedError as error:
        print(f"the database of known vulnerabilities could not be asked: {error}", file=sys.stderr)
        return NOT_ASKED


def _ask(uv: str, auditor: str) -> list[dict[str, Any]]:
    """Return what is known of each pinned version."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [uv, "tool", "run", "--quiet", auditor, f"--requirement={PINS}", *OPTIONS, f"--output={report}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise NotAskedError(f"no answer within {MOST_SECONDS:g} s") from None
        except OSError as error:
            raise NotAskedError(f"{uv} cannot be started ({error.strerror})") from None
        try:
            # It ends with 1 when it has found something, and when it failed: then there is no report.
            return list(json.loads(report.read_text())["dependencies"])
        except (OSError, ValueError, KeyError):
            said = done.stderr.strip().splitlines() or [f"the auditor ended with {done.returncode} and said nothing"]
            raise NotAskedError(said[-1][-300:]) from None


def _judge(found: Sequence[dict[str, Any]]) -> int:
    unknown = [one["name"] for one in found if "skip_reason" in one]
    wrong = [(one, vulnerability) for one in found for vulnerability in one.get("vulns", ())]
    for one, vulnerability in wrong:
        fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
        print(f"{one['name']} {one['version']}: {vulnerability['id']}, fixed in {fixed}")
    if unknown:
        print(f"not known to the database: {', '.join(unknown)}")
    print(f"{len(found) - len(unknown)} packages were asked about, {len(wrong)} vulnerabilities are known")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
