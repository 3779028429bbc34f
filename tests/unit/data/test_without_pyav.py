"""PyAV is large, and a machine that reads prepared frames may do without it."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
sys.modules["av"] = None  # as if it were not installed
import api.app, hpo.cli.app, workers.cli, workers.process.job, workers.lease.worker
import benchmarks.gpu_speed, benchmarks.gpu_study, benchmarks.gpu_memory
from data import make_demo_dataset, open_dataset
"""


def test_what_trains_on_prepared_frames_can_be_imported_without_pyav() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
