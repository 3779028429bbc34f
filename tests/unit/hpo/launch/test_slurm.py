"""What Slurm is asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hpo.errors import SetupError
from hpo.launch.slurm import SlurmArray, group_options, minutes_of, script

ARRAY: dict[str, Any] = {"jobs": 3, "minutes": 240, "notice_seconds": 120, "gpus": 1}


@pytest.mark.parametrize(
    ("time", "minutes"),
    [("90", 90), ("90:01", 91), ("04:00:00", 240), ("2-00", 2880), ("1-2:30", 1590), ("0-0:0:30", 1)],
)
def test_a_time_limit_has_the_forms_of_slurm(time: str, minutes: int) -> None:
    assert minutes_of(time) == minutes


@pytest.mark.parametrize("time", ["", "0", "4h", "1:2:3:4", "-5", "00:00:00"])
def test_any_other_time_is_refused(time: str) -> None:
    with pytest.raises(SetupError, match="write it as Slurm does"):
        minutes_of(time)


def test_the_script_asks_for_what_was_given(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    array = SlurmArray(
        **ARRAY,
        cpus=8,
        memory="32G",
        partition="gpu",
        account="lab",
        setup=["module load cuda"],
        further={"qos": "high"},
    )
    text = script(array, tmp_path)
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, flags=re.MULTILINE))
    wanted = {
        "array": "0-2%3", "signal": "USR2@120", "time": "240", "gpus-per-node": "1", "cpus-per-task": "8", "mem": "32G",
        "partition": "gpu", "account": "lab", "qos": "high", "requeue": "",
    }  # fmt: skip
    assert wanted.items() <= asked.items()
    assert text.index("module load cuda") < text.index("srun ")
    assert re.search(r"srun .* --cpus-per-task=8 .*python\S* -P -u -m submitit.core._submit", text)


def test_the_machines_of_a_job_meet_at_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    text = script(SlurmArray(**ARRAY, nodes=2), tmp_path)
    assert "#SBATCH --nodes=2\n" in text
    assert "#SBATCH --ntasks-per-node=1\n" in text
    of_slurm = {"JOB_ID": "123456", "NODEID": "1", "JOB_NODELIST": "gpu[07-08]", "JOB_NUM_NODES": "2"}
    for name, value in of_slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    assert group_options(2) == ["--nodes", "2", "--node-rank", "1", "--meet", "gpu07:23456"]


def test_a_job_without_gpus_asks_for_none(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    assert "--gpus" not in script(SlurmArray(**{**ARRAY, "gpus": 0}), tmp_path)
