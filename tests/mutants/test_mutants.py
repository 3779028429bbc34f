"""The tool that tests the tests: which defects it makes, and when one counts as noticed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from .__main__ import KILLED, SURVIVED, UNCLEAR, Checkout, sample
from .mutations import Mutant, mutants_of
from .packages import ROOT, TESTS, judges_of, modules

SOURCE = '''"""A module that says 1 < 2."""

import logging

LIMIT: int = 3  # größer

@decorated(5)
def f(a: Literal[4], b=True):
    """Return a == b."""
    if not a or a < b - 1:
        logging.warning("a %d", a + 1)
        raise ValueError(f"{a + 7}")
    g(a)
    return a is b
'''
EXPECTED = {
    (5, "3 -> (4)"),
    (8, "True -> False"),
    (10, "not a or a < b - 1 -> (not a and a < b - 1)"),
    (10, "not a -> (a)"),
    (10, "a < b - 1 -> (a <= b - 1)"),
    (10, "b - 1 -> (b + 1)"),
    (10, "1 -> (2)"),
    (13, "g(a) -> pass"),
    (14, "return a is b -> return None"),
    (14, "a is b -> (a is not b)"),
}


def test_every_known_defect_is_made_and_nothing_that_no_test_should_notice() -> None:
    assert {(mutant.line, str(mutant)) for mutant in mutants_of(SOURCE)} == EXPECTED


def test_a_defect_changes_its_place_and_nothing_else() -> None:
    """Letters of several bytes before it do not move it."""
    before = SOURCE.splitlines()
    for mutant in mutants_of(SOURCE):
        after = mutant.made_in(SOURCE).splitlines()
        changed = [line for line, (old, new) in enumerate(zip(before, after, strict=True), start=1) if old != new]
        assert changed == [mutant.line]
        ast.parse(mutant.made_in(SOURCE))


@pytest.mark.parametrize("package", TESTS)
def test_every_package_is_there_with_tests_and_its_defects_are_python(package: str) -> None:
    found = sample(package, 5, seed=1)
    assert len(found) == 5
    assert found[:2] == sample(package, 2, seed=1), "a larger sample begins with the smaller one"
    for path, mutant in found:
        ast.parse(mutant.made_in((ROOT / path).read_text()))
        assert judges_of(package, path)


def test_the_tests_that_mirror_a_module_come_first() -> None:
    found = judges_of("hpo/stopping", Path("hpo/stopping/pausing.py"))
    assert found == ["tests/unit/hpo/stopping/test_pausing.py", "tests/unit/hpo/stopping"]
    assert not [path for path in modules("hpo/store") if "migrations" in path.parts]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("assert double(2) == 4", KILLED),
        ("assert double(0) == 0", SURVIVED),
        ("assert double(2) == 5", UNCLEAR),
    ],
)
def test_only_a_test_that_passes_without_the_defect_counts(tmp_path: Path, test: str, expected: str) -> None:
    folder = tmp_path / "checkout"
    folder.mkdir()
    source = "def double(a):\n    return a * 2\n"
    (folder / "numbers_doubled.py").write_text(source)
    (folder / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["slow"]\n')
    (folder / "test_it.py").write_text(f"from numbers_doubled import double\n\ndef test_it():\n    {test}\n")
    (mutant,) = [found for found in mutants_of(source) if str(found) == "a * 2 -> (a / 2)"]
    outcome, failed = Checkout(folder, "").judge(Path("numbers_doubled.py"), mutant, ["test_it.py"])
    assert (outcome, failed) == (expected, [] if expected == SURVIVED else ["test_it.py::test_it"])
    assert (folder / "numbers_doubled.py").read_text() == source


@pytest.mark.slow
def test_tests_that_pytest_cannot_run_raise_an_error(tmp_path: Path) -> None:
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "a.py").write_text("a = 1\n")
    with pytest.raises(RuntimeError, match="pytest ended with 4"):
        Checkout(tmp_path / "checkout", "").judge(Path("a.py"), Mutant(4, 5, 1, "1", "2"), ["nowhere.py"])
