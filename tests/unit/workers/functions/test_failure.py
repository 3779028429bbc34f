"""What an exception of a person's function means."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hpo.trial import FailureKind
from workers.functions.entry import Entry, load
from workers.functions.failure import classify, traceback_of_import


class _Unreadable(Exception):
    def __str__(self) -> str:
        raise LookupError


def test_an_exception_whose_text_cannot_be_made_is_a_failure_of_the_trial_too() -> None:
    try:
        raise _Unreadable
    except _Unreadable as error:
        kind, message = classify(error)
    assert kind is FailureKind.ERROR
    assert message.startswith("_Unreadable, whose text cannot be shown (it raises LookupError)\nTraceback")


@pytest.mark.parametrize(
    ("source", "shown"), [("missing\n", 1), ("def train(\n", 1), ("import json\njson.loads('')\n", 4)]
)
def test_the_traceback_of_an_import_has_no_call_of_ours(
    source: str, shown: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setitem(sys.modules, "mine", sys)  # removed afterwards
    file = tmp_path / "mine.py"
    file.write_text(source)
    with pytest.raises((NameError, SyntaxError, ValueError)) as caught:
        load(Entry.parse(f"{file}:train"))
    error = caught.value.with_traceback(caught.tb.tb_next)  # this test is no part of a worker
    lines = [line for line in traceback_of_import(error).splitlines() if line.startswith("  File")]
    assert len(lines) == shown
    assert f'File "{file}", line' in lines[0]
