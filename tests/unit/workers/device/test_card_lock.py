"""The lock of a GPU: one worker, or several whose shares are stated."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpo.errors import SetupError
from workers.device.card_lock import card_locked

HOLDER = """
import sys
from pathlib import Path
from workers.device.card_lock import card_locked
with card_locked(Path(sys.argv[1]), sys.argv[2], share=float(sys.argv[3])):
    print("held", flush=True)
    sys.stdin.read()
"""


class Holder:
    """Another process that holds a share of a card."""

    def __init__(self, folder: Path, card: str, share: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder), card, str(share)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"

    def kill(self) -> None:
        """End it without a chance to tidy up."""
        self.process.kill()
        self.process.communicate()


def test_a_card_has_one_worker_until_that_is_gone_however_it_ended(tmp_path: Path) -> None:
    holder = Holder(tmp_path, "GPU-a", 1.0)
    with card_locked(tmp_path, "GPU-b"):
        pass  # another card
    said = f"the GPU is taken: worker process {holder.process.pid} holds all of its memory; stop it, use another GPU"
    for share in (1.0, 0.1):
        with pytest.raises(SetupError, match=said), card_locked(tmp_path, "GPU-a", share=share):
            pass
    holder.kill()
    with card_locked(tmp_path, "GPU-a"):
        pass


def test_workers_share_a_card_up_to_all_of_it(tmp_path: Path) -> None:
    holders = [Holder(tmp_path, "GPU-a", 0.5), Holder(tmp_path, "GPU-a", 0.3)]
    with card_locked(tmp_path, "GPU-a", share=0.2):
        pass
    ids = " and ".join(str(pid) for pid in sorted(holder.process.pid for holder in holders))
    said = f"worker processes {ids} hold 0.8 of the GPU's memory, so that 0.2 is left, and not 0.3"
    with pytest.raises(SetupError, match=said), card_locked(tmp_path, "GPU-a", share=0.3):
        pass
    with pytest.raises(SetupError, match=r"so that 0\.2 is left, and not 1"), card_locked(tmp_path, "GPU-a"):
        pass
    for holder in holders:
        holder.kill()
    with card_locked(tmp_path, "GPU-a"):
        pass


def test_a_worker_that_ends_while_another_starts_is_passed_over(tmp_path: Path) -> None:
    """Its file may be gone between the listing of the folder and the look into the file."""
    (tmp_path / "GPU-a").mkdir()
    (tmp_path / "GPU-a" / "1-gone.share").symlink_to(tmp_path / "nothing")
    with card_locked(tmp_path, "GPU-a"):
        pass


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = r"the lock of the GPU cannot be taken in .*: Not a directory"
    with pytest.raises(SetupError, match=said), card_locked(tmp_path / "file", "GPU-a"):
        pass
