"""Peers in an environment of their own: the bridge with a fake peer; SMAC3 and Syne Tune where they are installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.optimizer.methods import Setting, bridged, make_method
from benchmarks.optimizer.methods.bridged import Bridged, space_of
from benchmarks.optimizer.problems import ProblemMissing, load_problem
from benchmarks.optimizer.service import simulate
from benchmarks.optimizer.study import spec_of
from hpo.spec import FloatParameter, IntParameter

BRIDGE = bridged.PROGRAM
FAKE = f"""
import sys
sys.path.insert(0, {str(BRIDGE.parent)!r})
import peers_bridge

class Fake:
    '''Pauses every trial at epoch 4, and asks the first one again after the second.'''
    def __init__(self, space, start):
        self.space, self.start, self.asked = space, start, 0
        print("noise on stdout")
    def ask(self):
        self.asked += 1
        values = {{place: (p["size"] - 1 if "size" in p else p["low"]) for place, p in enumerate(self.space)}}
        return (0 if self.asked == 3 else min(self.asked - 1, 2)), values, self.asked > 1
    def report(self, trial, step, loss):
        assert loss < 0  # an accuracy, minimized
        return "pause" if step == 4 and self.asked < 3 else "continue"
    def tell(self, trial, loss): pass
    def fail(self, trial): raise RuntimeError("no failure is expected")

peers_bridge.PEERS["smac"] = Fake
peers_bridge.main()
"""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the bridge run with the test's peer, in the environment of the tests."""
    program = tmp_path / "fake.py"
    program.write_text(FAKE)
    monkeypatch.setattr(bridged, "PROGRAM", program)
    monkeypatch.setattr(bridged, "PYTHON", Path(sys.executable))


@pytest.mark.usefixtures("fake")
def test_a_bridged_peer_pauses_trials_and_continues_them_when_it_asks_for_them_again() -> None:
    found = simulate(load_problem("demo_00"), "smac", 0, workers=1, trials=2)
    order = [(event.what, event.trial) for event in found.events if event.what != "reports"]
    assert order == [("begins", 0), ("paused", 0), ("begins", 1), ("paused", 1), ("resumes", 0), ("completed", 0)]
    assert [trial.origin.is_model for trial in found.trials] == [False, True]
    space = load_problem("demo_00").space
    assert found.trials[0].params == {
        "model": "r2plus1d_18",
        "lr": pytest.approx(5e-3),
        "weight_decay": pytest.approx(1e-6),
        "dropout": 0.0,
        "clip.stride": 1,
    }
    assert list(space)[5:] == ["model.width", "model.alpha", "model.beta_inv"]  # inactive with this model


@pytest.mark.usefixtures("fake")
def test_an_error_of_a_peer_is_raised_with_its_text() -> None:
    peer = Bridged(Setting(problem=load_problem("demo_00"), seed=0, trials=1), peer="smac")
    trial, _ = peer.ask()
    with pytest.raises(RuntimeError, match="no failure is expected"):
        peer.fail(trial)
    peer.close()


def test_the_space_crosses_the_bridge_as_places_and_bounds() -> None:
    space = space_of(load_problem("demo_00"))
    assert space[0] == {"type": "categorical", "size": 2, "when": []}
    assert space[1] == {"type": "float", "low": 5e-3, "high": 0.2, "log": True, "when": []}
    assert space[5] == {"type": "ordinal", "size": 2, "when": [[0, [0]]]}


def test_stepped_ranges_cross_as_places() -> None:
    stepped = FloatParameter(type="float", low=0.1, high=0.5, step=0.2)
    assert bridged._described(stepped) == {"type": "ordinal", "size": 3}
    assert bridged._decoded(stepped, 2) == 0.5
    even = IntParameter(type="int", low=2, high=8, step=2)
    assert bridged._decoded(even, 1) == 4
    # A peer may return an end of a logarithmic range with an error of rounding.
    rate = FloatParameter(type="float", low=5e-3, high=0.2, log=True)
    assert bridged._decoded(rate, 0.20000000000000004) == 0.2


def test_without_its_environment_a_peer_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bridged, "PYTHON", tmp_path / "python")
    with pytest.raises(ProblemMissing, match="README"):
        make_method("cqr", Setting(problem=load_problem("demo_00"), seed=0, trials=1))


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["cqr", "smac"])
def test_the_peers_propose_valid_configurations_and_stop_some(peer: str) -> None:
    if not bridged.PYTHON.exists():
        pytest.skip("the environment of the peers is not installed: benchmarks/optimizer/README.md")
    problem = load_problem("demo_02")
    found = simulate(problem, peer, 1, trainings=8)
    spec = spec_of(problem, trials=1)
    for trial in found.trials:
        spec.check_params(trial.params)
    assert {trial.state for trial in found.trials} >= {"completed"}
    assert any(trial.epochs == 4 for trial in found.trials)
