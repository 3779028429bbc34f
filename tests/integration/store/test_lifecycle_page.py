"""The page about the trial's life names the statements that there are, all of them."""

from __future__ import annotations

import re
from pathlib import Path

from hpo.store.statements import STATEMENTS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "trial-lifecycle.md"


def test_the_page_names_every_statement_and_no_other() -> None:
    rows = [line.split("|")[2] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    named = {name for cell in rows for name in re.findall(r"`(\w+)`", cell)}
    assert named == set(STATEMENTS)


def test_the_fence_on_the_page_is_the_fence_in_the_statements() -> None:
    (fence,) = re.findall(r"```sql\n(WHERE id = :trial_id.*?)\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    words = fence.split()
    for name in ("report", "finish"):
        assert " ".join(words) in " ".join(STATEMENTS[name].split())


def test_nothing_else_updates_a_trial() -> None:
    store = Path(__file__).resolve().parents[3] / "hpo"
    writes = re.compile(r"UPDATE trial|INSERT INTO trial|update\(trial|insert\(trial|DELETE FROM trial|delete\(trial")
    found = [path.name for path in store.rglob("*.py") if writes.search(path.read_text(encoding="utf-8"))]
    # One makes room for a priority, once; the way back of the other turns trials into what earlier releases know.
    assert sorted(found) == ["0003_keep_guesses.py", "0026_keep_origins_of_trials.py"]
