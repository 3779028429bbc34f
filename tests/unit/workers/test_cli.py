"""`hpo-worker`: a mistake in its use is reported in one sentence."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from hpo.errors import SetupError
from hpo.protocol import WorkerInfo
from hpo.settings import Settings
from workers import cli
from workers.cli import main
from workers.device.card_lock import card_locked
from workers.device.detection import Device
from workers.lease import worker as worker_module
from workers.lease.cleanup import WorkerCleanup
from workers.lease.worker import WorkerConfig
from workers.process import follower as follower_module
from workers.process import group as group_module
from workers.process.follower import FollowerConfig


def _fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    code = ended.value.code
    assert isinstance(code, int)
    return code, capsys.readouterr().err


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HPO_HOME", str(tmp_path))
    for name in ("HPO_URL", "HPO_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_error_for_a_missing_token_names_its_path(capsys: pytest.CaptureFixture[str], surroundings: Path) -> None:
    code, said = _fails(capsys, "--cpu")
    assert code == 1
    assert said.startswith("hpo-worker: there is no token: ")
    assert str(surroundings / "token") in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("arguments", [(), ("--cpu", "--gpu", "0")])
def test_exactly_one_device_must_be_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    code, said = _fails(capsys, *arguments)
    assert (code, said.startswith("hpo-worker: say where to train: either --gpu N or --cpu; --gpus")) == (1, True)


def test_a_token_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, said = _fails(capsys, "--cpu", "--token-file", str(tmp_path / "absent"))
    assert code == 1
    assert "absent cannot be read" in said


def test_an_error_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, said = _fails(capsys, "--cpu", "--token-file", str(tmp_path / "a\x1b[2J"))
    assert r"a\x1b[2J cannot be read" in said
    assert "\x1b" not in said


def test_an_address_that_is_not_one_of_an_api_ends_the_worker(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    code, said = _fails(capsys, "--cpu", "--threads", "1", "--url", "ftp://example.invalid")
    assert code == 1
    assert said.splitlines()[-1] == (
        "hpo-worker: 'ftp://example.invalid' is not the address of an API; write something like http://host:8000"
    )


def test_the_worker_waits_for_an_api_that_does_not_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    with socket.socket() as bound:  # bound but not listening: connections are refused
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        code, _ = _fails(capsys, "--cpu", "--threads", "1", "--url", url, "--exit-when-idle", "0.1")
    assert code == 0


class FakeWorker:
    """Keeps its configuration, and tries whether another worker could take the GPU meanwhile."""

    configs: list[WorkerConfig]
    home: Path
    left: float

    def __init__(self, config: WorkerConfig, _: Any, *, clean_up: WorkerCleanup) -> None:
        self.configs.append(config)

    def install_signal_handlers(self) -> None:
        """Install none."""

    is_stopping = False

    def run(self) -> None:
        """Take what is left of the GPU, and no more."""
        with pytest.raises(SetupError), card_locked(self.home / "gpus", "GPU-5c3d", share=self.left + 0.01):
            pass
        if self.left:
            with card_locked(self.home / "gpus", "GPU-5c3d", share=self.left):
                pass


@pytest.mark.parametrize(
    ("arguments", "expected"), [((), (1.0, 24 * 2**30)), (("--memory-share", "0.25"), (0.25, 6 * 2**30))]
)
def test_a_gpu_is_held_or_shared_by_a_stated_part(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    surroundings: Path,
    arguments: tuple[str, ...],
    expected: tuple[float, int],
) -> None:
    share, _ = expected
    gpu = Device(kind="cuda", label="cuda:0", threads=1, visible="0", uuid="GPU-5c3d", memory_bytes=24 * 2**30)
    monkeypatch.setattr(cli, "gpu_device", lambda *_, **__: gpu)
    monkeypatch.setattr(worker_module, "Worker", FakeWorker)
    for name, value in (("configs", []), ("home", surroundings), ("left", 1 - share)):
        monkeypatch.setattr(FakeWorker, name, value, raising=False)
    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    assert _fails(capsys, "--gpu", "0", *arguments)[0] == 0
    (config,) = FakeWorker.configs
    assert (config.device.memory_share, config.info.memory_bytes) == expected
    # Two workers of one GPU need names of their own.
    assert (str(config.info.pid) in config.info.name) == (share < 1)


@pytest.mark.parametrize(
    ("arguments", "installed", "expected"),
    [((), False, [False]), (("--tensorboard",), True, [True]), (("--tensorboard",), False, [])],
)
def test_event_files_of_tensorboard_are_written_if_it_is_installed(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    installed: bool,
    expected: list[bool],
) -> None:
    gpu = Device(kind="cuda", label="cuda:0", threads=1, visible="0", uuid="GPU-5c3d", memory_bytes=24 * 2**30)
    monkeypatch.setattr(cli, "gpu_device", lambda *_, **__: gpu)
    monkeypatch.setattr(cli, "find_spec", lambda name: name if installed and name == "tensorboard" else None)
    monkeypatch.setattr(worker_module, "Worker", FakeWorker)
    monkeypatch.setattr(FakeWorker, "run", lambda _: None)
    monkeypatch.setattr(FakeWorker, "configs", [], raising=False)
    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    code, said = _fails(capsys, "--gpu", "0", *arguments)
    assert [config.tensorboard for config in FakeWorker.configs] == expected
    assert ("pip install 'video-hpo[tensorboard]'" in said) == (code == 1) == (not expected)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gpu", "0", "--memory-share", "1.5"), "--memory-share is 1.5; it is the part of a GPU's memory"),
        (("--gpu", "0", "--memory-share", "0"), "--memory-share is 0; it is the part of a GPU's memory"),
        (("--cpu", "--memory-share", "0.5"), "--memory-share is for a GPU; leave it out with --cpu"),
    ],
)
def test_a_share_that_is_none_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    code, found = _fails(capsys, *arguments)
    assert (code, found.startswith(f"hpo-worker: {said}")) == (1, True)


@pytest.mark.parametrize(
    ("url", "options", "variable", "expected"),
    [
        ("http://127.0.0.1:8000", (), None, None),
        ("http://localhost:8000", (), None, None),
        ("http://[::1]:8000", (), None, None),
        ("https://hpo.example.org", (), None, ["HOME"]),
        ("http://127.0.0.1.example.org", (), None, ["HOME"]),
        ("https://hpo.example.org", ("/data", "/more"), "/other", ["/data", "/more"]),
        ("http://127.0.0.1:8000", (), "/data:/more", ["/data", "/more"]),
    ],
)
def test_data_sets_are_where_the_operator_says(  # noqa: PLR0917 - four columns of a table, and two fixtures
    monkeypatch: pytest.MonkeyPatch,
    surroundings: Path,
    url: str,
    options: tuple[str, ...],
    variable: str | None,
    expected: list[str] | None,
) -> None:
    if variable is not None:
        monkeypatch.setenv("HPO_DATA_ROOTS", variable)
    settings = Settings.load(home=surroundings, url=url, data_roots=[Path(option) for option in options])
    found = cli._data_roots(settings)
    wanted = expected and tuple(surroundings if root == "HOME" else Path(root) for root in expected)
    assert found == wanted


def test_addresses_are_allowed_beside_folders_or_alone(surroundings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_DATA_ROOTS", "s3://mine/sets:/data:http://10.0.0.7:9000/sets:gs://other")
    settings = Settings.load(home=surroundings)
    assert settings.remote_roots == ("s3://mine/sets", "http://10.0.0.7:9000/sets", "gs://other")
    assert cli._data_roots(settings) == (Path("/data"),)
    alone = Settings.load(home=surroundings, url="http://127.0.0.1:8000", data_roots=["s3://mine"])
    assert cli._data_roots(alone) == (), "who names places means these"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gpus", "0,0"), "--gpus 0,0: name each GPU once by its number, such as 0,1,2,3, or use `all`"),
        (("--gpus", "0,x"), "--gpus 0,x: name each GPU once by its number"),
        (("--gpus", "0", "--gpu", "1"), "give --gpu or --gpus, not both"),
        (("--gpus", "0", "--ranks", "2"), "--ranks is for a CPU"),
        (("--gpus", "0,9"), "the GPUs of one worker must be of one kind, and these are A100 and H200"),
        (("--cpu", "--ranks", "2", "--entry", "a:b"), "a function of your own starts on several GPUs by itself"),
        (("--cpu", "--nodes", "2", "--entry", "a:b"), "a function of your own starts on several machines by itself"),
        (("--cpu", "--meet", "a:1"), "--node-rank and --meet are for groups of machines: give --nodes too"),
        (("--cpu", "--nodes", "2", "--node-rank", "2"), "--node-rank 2: of 2 machines they are 0 to 1"),
        (("--cpu", "--nodes", "2"), "--meet: give HOST:PORT, where the machines reach the one of node rank 0"),
        (("--cpu", "--nodes", "2", "--meet", "host"), "--meet host: give HOST:PORT"),
    ],
)
def test_gpus_that_cannot_be_one_worker_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(cli, "gpu_device", _gpu)
    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    code, found = _fails(capsys, *arguments)
    assert (code, found.startswith(f"hpo-worker: {said}")) == (1, True), found


def _gpu(index: int, **_: object) -> Device:
    """Return a GPU of a machine with one that differs from the others, number 9, and one of less memory, number 1."""
    memory = (20 if index == 1 else 24) * 2**30
    name = "H200" if index == 9 else "A100"
    return Device(
        kind="cuda",
        label=f"cuda:{index}",
        threads=1,
        visible=str(index),
        uuid=f"GPU-{index}",
        gpu_name=name,
        memory_bytes=memory,
        bf16=index != 1,
    )


def test_a_worker_of_several_gpus_holds_each_and_says_how_many(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, surroundings: Path
) -> None:
    def run(_: FakeWorker) -> None:
        for card in ("GPU-0", "GPU-1"):
            with pytest.raises(SetupError), card_locked(surroundings / "gpus", card):
                pass

    monkeypatch.setattr(cli, "gpu_device", _gpu)
    monkeypatch.setattr(worker_module, "Worker", FakeWorker)
    monkeypatch.setattr(FakeWorker, "run", run)
    monkeypatch.setattr(FakeWorker, "configs", [], raising=False)
    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    assert _fails(capsys, "--gpus", "0,1")[0] == 0
    (config,) = FakeWorker.configs
    assert (config.info.gpus, config.info.device) == (2, "cuda:0,1")
    assert config.info.memory_bytes == 20 * 2**30  # of the smaller one, as a rank may be on it
    assert not config.device.bf16
    assert config.device.environment()["CUDA_VISIBLE_DEVICES"] == "0,1"


@pytest.mark.parametrize(
    ("given", "expected"), [((), None), (("--compile", "blocks"), "blocks"), (("--compile", "graphs"), "graphs")]
)
def test_blocks_are_compiled_if_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], expected: str | None
) -> None:
    monkeypatch.setattr(cli, "gpu_device", _gpu)
    monkeypatch.setattr(worker_module, "Worker", FakeWorker)
    monkeypatch.setattr(FakeWorker, "configs", [], raising=False)
    monkeypatch.setattr(FakeWorker, "run", lambda _: None)
    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    assert _fails(capsys, "--gpu", "0", *given)[0] == 0
    (config,) = FakeWorker.configs
    assert config.compile == expected


def test_graphs_are_refused_on_a_cpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    code, said = _fails(capsys, "--cpu", "--compile", "graphs")
    assert (code, said.startswith("hpo-worker: --compile graphs needs a GPU; ")) == (1, True)


@pytest.mark.parametrize("given", [(), ("--readers", "6")], ids=["of the leader", "of its own"])
def test_a_follower_obeys_the_options_of_its_machine(monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]) -> None:
    followed: list[FollowerConfig] = []

    class Recorded:
        def __init__(self, config: FollowerConfig, token: str) -> None:
            followed.append(config)

        def install_signal_handlers(self) -> None:
            """Leave the signals of the test alone."""

        def run(self) -> None:
            """Follow nobody."""

        is_stopping = False

    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    monkeypatch.setattr(follower_module, "Follower", Recorded)
    with pytest.raises(SystemExit) as ended:
        main(["--cpu", "--threads", "3", "--nodes", "2", "--node-rank", "1", "--meet", "host:123", *given])
    assert ended.value.code == 0
    (config,) = followed
    assert (config.hello.node, config.address, config.own["threads"]) == (1, ("host", 123), 3)
    assert config.own.get("readers") == (6 if given else None)


@pytest.mark.parametrize("rank", ["0", "1"], ids=["leader", "follower"])
@pytest.mark.parametrize(("is_asked", "expected"), [(True, 143), (False, 0)])
def test_a_member_of_a_group_that_a_signal_ended_says_so_by_its_status(
    monkeypatch: pytest.MonkeyPatch, rank: str, is_asked: bool, expected: int
) -> None:
    class Ended:
        is_stopping = is_asked

        def __init__(self, *_: object, **__: object) -> None: ...

        def install_signal_handlers(self) -> None:
            """Leave the signals of the test alone."""

        def run(self) -> None:
            """Have ended already."""

    class Nobody:
        def dismiss(self) -> None:
            """Let nobody go."""

        def are_there(self) -> bool:
            return False

    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    monkeypatch.setattr(worker_module, "Worker", Ended)
    monkeypatch.setattr(follower_module, "Follower", Ended)
    monkeypatch.setattr(cli, "_followers", lambda *_: Nobody())
    monkeypatch.setattr(group_module, "LeadingProcesses", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main(["--cpu", "--nodes", "2", "--node-rank", rank, "--meet", "host:123", "--drained-status", "143"])
    assert ended.value.code == expected


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[WorkerInfo]:
    """What workers that are started say of themselves; they do nothing else."""
    found: list[WorkerInfo] = []

    class Introduced:
        is_stopping = False

        def __init__(self, config: WorkerConfig, *_: object, **__: object) -> None:
            found.append(config.info)

        def install_signal_handlers(self) -> None:
            """Leave the signals of the test alone."""

        def run(self) -> None:
            """Take no trial."""

    monkeypatch.setenv("HPO_TOKEN", "hpo_x")
    monkeypatch.delenv("HPO_HOST", raising=False)
    monkeypatch.setattr(worker_module, "Worker", Introduced)
    return found


@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_worker_in_a_container_is_on_the_machine_that_it_is_told(
    monkeypatch: pytest.MonkeyPatch, told: list[WorkerInfo], way: str
) -> None:
    with pytest.raises(SystemExit):
        main(["--cpu"])
    if way == "environment":
        monkeypatch.setenv("HPO_HOST", "node-7")
    with pytest.raises(SystemExit):
        main(["--cpu", *(["--host", "node-7"] if way == "option" else [])])
    own, given = told
    assert (own.host, given.host) == (socket.gethostname(), "node-7")
    assert given.name == own.name, "several containers of a node differ in their own host name"


@pytest.mark.parametrize(("option", "most"), [("--name", 200), ("--host", 255)])
def test_a_name_that_is_too_long_is_refused_in_one_sentence(
    capsys: pytest.CaptureFixture[str], told: list[WorkerInfo], option: str, most: int
) -> None:
    code, said = _fails(capsys, "--cpu", option, "a" * (most + 1))
    assert (code, said) == (1, f"hpo-worker: {option}: String should have at most {most} characters\n")
    assert not told
