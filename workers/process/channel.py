"""A connection between two machines of a group: lines of text, each known to be from the other one.

Both show first that they have the token of the workers, without sending it. After that, each line has a digest that
nobody makes without the token, and that is good for one line of one connection. Lines can be read on the way.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import ipaddress
import secrets
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Final, Self

from hpo.errors import AuthenticationError
from hpo.protocol import Message

_GREETING: Final = "video-hpo-group-1"
_HANDSHAKE_SECONDS: Final = 10.0
_HANDSHAKE_BYTES: Final = 4096
_NO: Final = "another token"
"""What a leader answers to a digest that is not of its token."""
_LINE_BYTES: Final = 2**24
_LOST_SECONDS: Final = 30
"""A machine that answers nothing for so long is lost: a connection over which nothing is sent would not tell."""
_SIOCGIFADDR: Final = 0x8915
"""Of Linux's `ioctl`: the IPv4 address of an interface."""


class Line(Message):
    """What another process needs to go on with a connection whose socket it has."""

    handle: int
    """The number of the socket."""
    node: int
    """The number of the machine at the other end."""
    host: str
    key_out: str
    key_in: str
    """Of the digests, in hexadecimal digits."""
    sent: int = 0
    received: int = 0
    """Lines."""


class Channel:
    """One end of a connection, after the handshake."""

    def __init__(self, sock: socket.socket, *, key_out: bytes, key_in: bytes, sent: int = 0, received: int = 0) -> None:
        self._sock = sock
        self._key_out = key_out
        self._key_in = key_in
        self._sent = sent
        self._received = received
        self._lock = threading.Lock()

    @classmethod
    def of_line(cls, line: Line) -> Self:
        """Go on with a connection that another process began."""
        sock = socket.socket(fileno=line.handle)
        keys = {"key_out": bytes.fromhex(line.key_out), "key_in": bytes.fromhex(line.key_in)}
        return cls(sock, sent=line.sent, received=line.received, **keys)

    def line(self, node: int, host: str) -> Line:
        """Return what another process needs; this one must send and receive nothing any more."""
        return Line(
            handle=self._sock.fileno(),
            node=node,
            host=host,
            key_out=self._key_out.hex(),
            key_in=self._key_in.hex(),
            sent=self._sent,
            received=self._received,
        )

    @property
    def address(self) -> str:
        """The address of this end; one of IPv4 as such, also where the socket listened for both kinds."""
        return str(self._sock.getsockname()[0]).removeprefix("::ffff:")

    @property
    def interface(self) -> str | None:
        """The name of the network interface that the connection goes over; None where that is not found out."""
        return _interface_of(self.address)

    @property
    def is_open(self) -> bool:
        """Whether the other end has neither closed the connection nor said anything."""
        readable, _, _ = select.select([self._sock], [], [], 0)
        return not readable

    def send(self, text: str) -> None:
        """Send a line; it is dropped if the connection has ended, which `received` shows."""
        with self._lock, contextlib.suppress(OSError):
            self._sock.sendall(f"{_digest(self._key_out, str(self._sent), text)} {text}\n".encode())
            self._sent += 1

    def received(self) -> Iterator[str]:
        """Yield what the other end sends, until the connection ends, or what comes is not from there."""
        # An error of the socket is the end of the connection.
        with contextlib.suppress(OSError), self._sock.makefile("rb") as file:
            while (line := file.readline(_LINE_BYTES)).endswith(b"\n"):
                if (text := self._text_of(line[:-1].decode("utf-8", "replace"))) is None:
                    return
                yield text

    def receive(self, patience_seconds: float) -> str | None:
        """Return the next line, a short one, and leave what follows; None if none comes in time from the other end."""
        try:
            return self._text_of(_read(self._sock, time.monotonic() + patience_seconds))
        except OSError:
            return None
        finally:
            self._sock.settimeout(None)

    def _text_of(self, line: str) -> str | None:
        digest, _, text = line.partition(" ")
        if not _are_equal(digest, _digest(self._key_in, str(self._received), text)):
            return None
        self._received += 1
        return text

    def leave(self) -> None:
        """Let go of the connection here; another process has it."""
        self._sock.close()

    def close(self) -> None:
        """End the connection, also for a thread that waits for a line."""
        with contextlib.suppress(OSError):  # the other end has closed it already
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


def accept(sock: socket.socket, token: str) -> tuple[Channel, str]:
    """Make the handshake on the side of the leader; return the channel and how the other end introduces itself.

    Raises:
        AuthenticationError: it has another token, or speaks another language.
        OSError: the connection ended, or stood still.
    """
    deadline = time.monotonic() + _HANDSHAKE_SECONDS
    _watch(sock)
    ours = secrets.token_hex(16)
    _write(sock, f"{_GREETING} {ours}")
    theirs, _, rest = _read(sock, deadline).partition(" ")
    digest, _, hello = rest.partition(" ")
    if not _are_equal(digest, _digest(token.encode(), "follower", ours, theirs, hello)):
        _write(sock, _NO)
        raise AuthenticationError("its token is not that of this worker")
    _write(sock, _digest(token.encode(), "leader", ours, theirs))
    return _channel(sock, token, "leader", ours + theirs), hello


def connect(address: tuple[str, int], token: str, hello: str) -> Channel:
    """Connect to the leader, and make the handshake on the side of a follower.

    Raises:
        AuthenticationError: the leader has another token, or is none.
        OSError: it cannot be reached, or has ended.
    """
    deadline = time.monotonic() + _HANDSHAKE_SECONDS
    sock = socket.create_connection(address, timeout=_HANDSHAKE_SECONDS)
    try:
        _watch(sock)
        greeting, _, theirs = _read(sock, deadline).partition(" ")
        if greeting != _GREETING:
            raise AuthenticationError(f"{address[0]}:{address[1]} is no worker of this release that leads a group")
        ours = secrets.token_hex(16)
        _write(sock, f"{ours} {_digest(token.encode(), 'follower', theirs, ours, hello)} {hello}")
        answer = _read(sock, deadline)
        if answer == _NO:
            raise AuthenticationError("the worker that leads the group has another token than this one")
        if not _are_equal(answer, _digest(token.encode(), "leader", theirs, ours)):
            raise AuthenticationError(f"{address[0]}:{address[1]} does not have the token of the workers")
        return _channel(sock, token, "follower", theirs + ours)
    except BaseException:
        sock.close()
        raise


def address_of(meet: str) -> tuple[str, int] | None:
    """Return the host and the port of `HOST:PORT`; None if it is not one."""
    host, _, port = meet.rpartition(":")
    is_port = port.isdecimal() and 0 < int(port) < 2**16
    return (host.strip("[]"), int(port)) if host and is_port else None


def listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens: on the loopback interface if `host` names that, else on all.

    The name of a machine often means the loopback interface on the machine itself, and another one elsewhere.

    Raises:
        OSError: the port is taken, or may not be used.
    """
    if is_loopback(host):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def is_loopback(host: str) -> bool:
    """Return whether a host is always this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _channel(sock: socket.socket, token: str, side: str, nonces: str) -> Channel:
    sock.settimeout(None)
    of_leader, of_follower = (_digest(token.encode(), f"lines of the {one}", nonces) for one in ("leader", "follower"))
    ours, theirs = (of_leader, of_follower) if side == "leader" else (of_follower, of_leader)
    return Channel(sock, key_out=bytes.fromhex(ours), key_in=bytes.fromhex(theirs))


def _watch(sock: socket.socket) -> None:
    """Have the kernel notice a machine that is lost."""
    for option, value in (
        (socket.TCP_KEEPIDLE, _LOST_SECONDS // 3),
        (socket.TCP_KEEPINTVL, _LOST_SECONDS // 6),
        (socket.TCP_KEEPCNT, 4),
        (socket.TCP_USER_TIMEOUT, 1000 * _LOST_SECONDS),
        (socket.TCP_NODELAY, 1),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _digest(key: bytes, *parts: str) -> str:
    return hmac.new(key, "\n".join(parts).encode(), hashlib.sha256).hexdigest()


def _are_equal(one: str, other: str) -> bool:
    """Return whether digests are equal; what others send need not be one, nor ASCII."""
    return hmac.compare_digest(one.encode(), other.encode())


def _write(sock: socket.socket, text: str) -> None:
    sock.sendall(f"{text}\n".encode())


def _read(sock: socket.socket, deadline: float) -> str:
    """Return a line, byte by byte: what follows is read by others."""
    read = bytearray()
    while len(read) < _HANDSHAKE_BYTES:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        if not (byte := sock.recv(1)):
            raise ConnectionResetError("the connection was closed")
        if byte == b"\n":
            return read.decode("utf-8", "replace")
        read += byte
    raise ConnectionResetError("what was received is no line of a handshake")


def _interface_of(address: str) -> str | None:
    if is_loopback(address):
        return "lo"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has no IPv4 address
                found = fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(found[20:24]) == address:
                    return name
    return None
