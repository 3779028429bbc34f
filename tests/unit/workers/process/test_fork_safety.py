"""Computing with threads before a fork is noticed: afterwards a fork would wait for ever."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import ctypes, sys
from workers.process.fork_safety import hindrance

library = ctypes.CDLL(sys.argv[1])
print(hindrance())
library.GOMP_parallel(ctypes.CDLL(None).getpid, None, 2, 0)
print(hindrance())
"""


def test_threads_of_openmp_are_noticed_where_they_have_computed() -> None:
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    library = next((Path(spec.origin).parent / "lib").glob("libgomp*"), None)
    if library is None:
        pytest.skip("this build of PyTorch has no OpenMP of GNU")
    run = subprocess.run([sys.executable, "-c", SCRIPT, str(library)], capture_output=True, text=True, check=True)
    before, after = run.stdout.splitlines()
    assert before == "None"
    assert "computed with several threads" in after
