"""Main memory as the kernel shows it: files of control groups in a folder, and real processes that are killed."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workers.device import main_memory
from workers.device.main_memory import MemoryWatch, Shortage, oom_kills, total_bytes

MIB = 2**20
WRITTEN_BY = {
    "cgroup 2": ("0::/user.slice/job", "job.events", "low 0\nmax 7\noom 2\noom_kill {}\noom_group_kill 9\n"),
    "cgroup 2 in a container": ("0::/", "memory.events", "oom 2\noom_kill {}\n"),
    "cgroup 1": ("9:cpu:/x\n4:memory:/slurm/job_7\n0::/", "memory/slurm/job_7/memory.oom_control", "oom_kill {}\n"),
    "cgroup 1 in a container": ("4:cpu,memory:/docker/1f", "memory/memory.oom_control", "under_oom 0\noom_kill {}\n"),
}


class Kernel:
    """The files of a kernel."""

    def __init__(self, folder: Path) -> None:
        self.proc = folder / "proc"
        self.groups = folder / "cgroup"
        (self.proc / "self").mkdir(parents=True)

    def write(self, name: str, text: str) -> None:
        """Write a file of a control group."""
        path = self.groups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel(tmp_path)
    monkeypatch.setattr(main_memory, "_PROC", made.proc)
    monkeypatch.setattr(main_memory, "_GROUPS", made.groups)
    return made


@pytest.mark.parametrize("version", WRITTEN_BY)
def test_the_counter_of_the_own_group_is_read_before_that_of_the_machine(kernel: Kernel, version: str) -> None:
    groups, name, text = WRITTEN_BY[version]
    (kernel.proc / "self" / "cgroup").write_text(groups + "\n")
    (kernel.proc / "vmstat").write_text("pgfault 12\noom_kill 40\n")
    assert oom_kills() == 40
    kernel.write(name.replace("job.events", "user.slice/job/memory.events"), text.format(3))
    assert oom_kills() == 3


def test_a_kernel_that_counts_nothing_is_asked_in_vain(kernel: Kernel) -> None:
    assert oom_kills() is None
    assert MemoryWatch().shortage() is None


def test_this_kernel_counts() -> None:
    assert oom_kills() is not None


@pytest.mark.parametrize(("name", "scale"), [("memory.max", 0.25), ("memory/memory.limit_in_bytes", 0.5)])
def test_memory_is_that_of_the_container_where_it_is_less(kernel: Kernel, name: str, scale: float) -> None:
    physical = total_bytes()
    kernel.write(name, f"{int(scale * physical)}\n")
    assert total_bytes() == int(scale * physical)
    kernel.write(name, f"{2 * physical}\n")
    assert total_bytes() == physical
    kernel.write(name, "max\n")
    assert total_bytes() == physical


def killed(mib: int) -> None:
    """Start a process that takes this much memory, kill it, and wait for it."""
    code = f"import sys; held = b'x' * ({mib} << 20); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)


def largest_before() -> int:
    """Return what the largest child of this process has held, in MiB, or the next will, which begins as a copy of it.

    Other tests may have started large ones, or have made this process large.
    """
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return max(main_memory._largest_child_bytes(), own) // MIB


def test_the_process_is_to_blame_if_it_held_half_of_the_memory(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    (kernel.proc / "vmstat").write_text("oom_kill 7\n")
    watch = MemoryWatch()
    held = largest_before() + 64
    killed(held)
    monkeypatch.setattr(main_memory, "total_bytes", lambda: int(1.5 * held * MIB))
    assert watch.shortage() is None, "the kernel has ended no process"
    (kernel.proc / "vmstat").write_text("oom_kill 8\n")
    monkeypatch.setattr(main_memory, "total_bytes", lambda: 4 * held * MIB)
    assert watch.shortage() is Shortage.OTHERS
    assert not watch.peak_bytes
    monkeypatch.setattr(main_memory, "total_bytes", lambda: int(1.5 * held * MIB))
    assert watch.shortage() is Shortage.ITSELF
    assert watch.peak_bytes is not None
    assert held <= watch.peak_bytes / MIB < held + 64


def test_of_a_small_process_after_a_large_one_it_is_not_known(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    (kernel.proc / "vmstat").write_text("oom_kill 7\n")
    killed(64)  # another test may have had a larger one
    watch = MemoryWatch()
    held = largest_before()
    monkeypatch.setattr(main_memory, "total_bytes", lambda: 2 * held * MIB)
    killed(1)
    (kernel.proc / "vmstat").write_text("oom_kill 8\n")
    assert watch.shortage() is Shortage.UNKNOWN


def test_the_kernel_ends_a_training_process_before_others() -> None:
    code = (
        "from workers.device.main_memory import let_kernel_end_this_first as let; let(); "
        "print(open('/proc/self/oom_score_adj').read())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    before = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(done.stdout) == max(before, 500)
