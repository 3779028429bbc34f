"""A connection between two machines: only those with the token speak, and nobody speaks in between."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from hpo.errors import AuthenticationError
from workers.process import channel as channel_module
from workers.process.channel import Channel, accept, address_of, connect, listener

TOKEN = "hpo_secret"  # noqa: S105 - of no service


class Accepted(threading.Thread):
    """The side of the leader, for one connection."""

    def __init__(self, listening: socket.socket, token: str = TOKEN) -> None:
        super().__init__()
        self._listening = listening
        self._token = token
        self.channel: Channel | None = None
        self.hello = ""
        self.error: Exception | None = None

    def run(self) -> None:
        sock, _ = self._listening.accept()
        try:
            self.channel, self.hello = accept(sock, self._token)
        except (AuthenticationError, OSError) as error:
            self.error = error
            sock.close()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with listener("127.0.0.1", 0) as made:
        yield made


def _pair(listening: socket.socket) -> tuple[Channel, Channel, str]:
    accepted = Accepted(listening)
    accepted.start()
    follower = connect(listening.getsockname(), TOKEN, "hello of \u00e4")
    accepted.join()
    assert accepted.channel is not None
    return accepted.channel, follower, accepted.hello


def test_lines_arrive_in_both_directions_and_the_token_is_never_sent(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = channel_module._write

    def recorded(sock: socket.socket, text: str) -> None:
        written.append(text)
        write(sock, text)

    monkeypatch.setattr(channel_module, "_write", recorded)
    leader, follower, hello = _pair(listening)
    assert hello == "hello of \u00e4"
    assert TOKEN not in "".join(written)
    assert follower.interface == "lo"
    assert leader.is_open
    for one, other in ((leader, follower), (follower, leader)):
        one.send("first")
        one.send("sec\u00f6nd")
        lines = other.received()
        assert [next(lines), next(lines)] == ["first", "sec\u00f6nd"]
    leader.close()
    assert list(follower.received()) == []
    follower.send("dropped")
    follower.close()


@pytest.mark.parametrize("theirs", ["hpo_other", ""])
def test_neither_side_takes_another_token(listening: socket.socket, theirs: str) -> None:
    accepted = Accepted(listening)
    accepted.start()
    with pytest.raises(AuthenticationError, match="another token"):
        connect(listening.getsockname(), theirs, "hello")
    accepted.join()
    assert isinstance(accepted.error, AuthenticationError)


def test_a_follower_does_not_take_a_leader_without_the_token(listening: socket.socket) -> None:
    def pretend() -> None:
        sock, _ = listening.accept()
        with sock:
            sock.sendall(b"video-hpo-group-1 00\n")
            sock.recv(4096)
            sock.sendall(b"0" * 64 + b"\n")

    impostor = threading.Thread(target=pretend)
    impostor.start()
    with pytest.raises(AuthenticationError, match="does not have the token"):
        connect(listening.getsockname(), TOKEN, "hello")
    impostor.join()


@pytest.mark.parametrize("sent", [b"00 11 hello\n", b"\xff\xfe \xff \xff\n", b"\n", 5000 * b"x"], ids=repr)
def test_what_is_no_handshake_is_refused(listening: socket.socket, sent: bytes) -> None:
    accepted = Accepted(listening)
    accepted.start()
    with socket.create_connection(listening.getsockname()) as stranger:
        stranger.sendall(sent)
        accepted.join()
    assert isinstance(accepted.error, AuthenticationError | ConnectionError)
    assert accepted.channel is None


def test_a_leader_that_ends_during_the_handshake_is_not_taken_for_one_of_another_token(
    listening: socket.socket,
) -> None:
    def end() -> None:
        sock, _ = listening.accept()
        with sock:
            sock.sendall(b"video-hpo-group-1 00\n")
            sock.recv(4096)

    leader = threading.Thread(target=end)
    leader.start()
    with pytest.raises(ConnectionError):
        connect(listening.getsockname(), TOKEN, "hello")
    leader.join()


def test_of_ipv4_an_address_is_one_where_both_kinds_are_listened_for() -> None:
    with listener("some-host", 0) as both:
        accepted = Accepted(both)
        accepted.start()
        follower = connect(("127.0.0.1", both.getsockname()[1]), TOKEN, "hello")
        accepted.join()
    leader = accepted.channel
    assert leader is not None
    assert (leader.address, leader.interface) == ("127.0.0.1", "lo")
    follower.close()
    leader.close()


@pytest.mark.parametrize("change", ["other text", "repeated", "sent back", "no text"])
def test_a_line_that_is_not_the_next_of_the_other_end_ends_the_connection(
    listening: socket.socket, change: str
) -> None:
    leader, follower, _ = _pair(listening)
    digest = channel_module._digest(leader._key_out, "0", "go")
    leader._sock.sendall(f"{digest} go\n".encode())
    lines = follower.received()
    assert next(lines) == "go"
    forged = {
        "other text": f"{channel_module._digest(leader._key_out, '1', 'go')} stop".encode(),
        "repeated": f"{digest} go".encode(),
        "sent back": f"{channel_module._digest(follower._key_out, '1', 'go')} go".encode(),
        "no text": b"\xff\xfe \xff",
    }
    leader._sock.sendall(forged[change] + b"\n")
    assert next(lines, None) is None
    leader.close()
    follower.close()


def test_an_address_has_a_host_and_a_port() -> None:
    assert address_of("gpu-1.example:29400") == ("gpu-1.example", 29400)
    assert address_of("[::1]:29400") == ("::1", 29400)
    assert [address_of(one) for one in ("host", "host:", ":1", "host:0", "host:70000", "host:x")] == [None] * 6
