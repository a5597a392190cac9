"""Ranks of a trial on other nodes: how they are started, and how each side hears at once that the other is gone.

Rank 0 listens, and invites; whoever starts processes on another node answers the invitation with :func:`join`, which
starts a rank there as a child of its own and stands between the two. A connection that ends, or that a node was cut
off from, ends the rank on one side and the trial on the other.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge, wait

import psutil

from trials.errors import TrialError
from trials.rank_process import READY, Job, RankProcess, lost

_DIAL_SECONDS = 20.0
_ARRIVAL_SECONDS = 60.0
"""How long rank 0 waits for those that have been started."""
_HANDSHAKE_SECONDS = 5.0
_IDLE_SECONDS, _PROBE_SECONDS, _PROBES = 10, 5, 4
CUT_OFF_SECONDS = _IDLE_SECONDS + _PROBE_SECONDS * _PROBES
"""How long a node may be out of reach before it counts as gone."""


@dataclass(frozen=True)
class Invitation:
    """Where rank 0 waits for a rank on another node."""

    host: str
    port: int
    key: bytes
    """Known to these two alone."""
    rank: int
    size: int


Launch = Callable[[Invitation], None]
"""Has :func:`join` called on one other node, and returns when it has returned.

Raises :class:`ProcessLost` when that node, or what starts processes there, is gone.
"""


@dataclass(frozen=True)
class Nodes:
    """The nodes that train a trial together: this one, and others."""

    processes: int = 1
    """How many processes train a trial whose recipe does not say."""
    others: tuple[Launch, ...] = ()
    """What starts processes on each of the other nodes."""
    host: Callable[[], str] = lambda: "127.0.0.1"
    """The address at which they reach this one; asked for on this node."""

    @property
    def count(self) -> int:
        """How many nodes there are."""
        return 1 + len(self.others)


THIS_NODE = Nodes()


class FarProcess:
    """A rank on another node, seen from rank 0."""

    def __init__(self, link: socket.socket, rank: int, size: int) -> None:
        self._link, self._rank, self._size = link, rank, size
        self._host = link.getpeername()[0]
        self.connection = Connection(os.dup(link.fileno()))

    def assign(self, paths: list[str], job: Job) -> None:
        """Tell it where its modules are and what it is to do."""
        with contextlib.suppress(OSError):  # one that died at once is heard of later
            self.connection.send(paths)
            self.connection.send(job)

    def hear(self) -> str | TrialError:
        """What it says next, or that it is gone."""
        try:
            heard: str | TrialError = self.connection.recv()
        except (EOFError, OSError) as error:
            how = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
            return lost(self._rank, self._size, f" is gone, or its node {self._host}{how}")
        return heard

    def kill(self) -> None:
        """End it, by the end of the connection."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Forget it."""
        self._link.close()
        self.connection.close()


class Reception:
    """Where ranks from other nodes come to rank 0.

    Args:
        host: the address at which they reach this node.
        size: how many ranks there are.
        handshake_seconds: how long one who comes may take to say who it is.
    """

    def __init__(self, host: str, size: int, handshake_seconds: float = _HANDSHAKE_SECONDS) -> None:
        self._host, self._size, self._key = host, size, secrets.token_bytes(32)
        self._handshake_seconds = handshake_seconds
        self._socket = socket.create_server((host, 0))

    def __enter__(self) -> Reception:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def invitation(self, rank: int) -> Invitation:
        """What the node of ``rank`` is to be told."""
        return Invitation(self._host, self._socket.getsockname()[1], self._key, rank, self._size)

    def receive(self, ranks: set[int], patience_seconds: float = _ARRIVAL_SECONDS) -> dict[int, FarProcess]:
        """Those of ``ranks``, as soon as all have come. Raises :class:`ProcessLost` when one does not."""
        come: dict[int, FarProcess] = {}
        until = time.monotonic() + patience_seconds
        try:
            while missing := ranks - come.keys():
                self._socket.settimeout(max(0.0, until - time.monotonic()))
                try:
                    link, _ = self._socket.accept()
                except (TimeoutError, BlockingIOError) as error:
                    why = f" did not come to {self._host} within {patience_seconds:g} s"
                    raise lost(min(missing), self._size, why) from error
                # Whoever is none of the trial's is turned away.
                with contextlib.suppress(EOFError, OSError, AuthenticationError, AssertionError):
                    process = self._welcome(link)
                    come[process[0]] = process[1]
        except BaseException:
            for one in come.values():
                one.close()
            raise
        return come

    def _welcome(self, link: socket.socket) -> tuple[int, FarProcess]:
        link.setblocking(True)
        end_when_cut_off(link)
        try:
            with _impatient(link, self._handshake_seconds), Connection(os.dup(link.fileno())) as connection:
                deliver_challenge(connection, self._key)
                answer_challenge(connection, self._key)
                rank: int = connection.recv()
            return rank, FarProcess(link, rank, self._size)
        except BaseException:
            link.close()
            raise


def join(invitation: Invitation) -> None:
    """Start a rank on this node, and stand between it and rank 0, in a thread, until either is gone.

    Returns as soon as rank 0 has been reached. Raises :class:`ProcessLost` when it cannot be.
    """
    try:
        link = socket.create_connection((invitation.host, invitation.port), timeout=_DIAL_SECONDS)
    except OSError as error:
        where = f"{invitation.host}:{invitation.port}"
        why = f" on {socket.gethostname()} cannot reach the first one at {where} ({error.strerror or error})"
        raise lost(invitation.rank, invitation.size, why) from error
    link.settimeout(None)
    end_when_cut_off(link)
    threading.Thread(target=_stand_between, args=(link, invitation), name="rank", daemon=True).start()


def _stand_between(link: socket.socket, invitation: Invitation) -> None:
    host = link.getsockname()[0]
    gone = (EOFError, OSError, AuthenticationError, AssertionError)
    with contextlib.suppress(*gone), Connection(link.detach()) as rank0:
        answer_challenge(rank0, invitation.key)
        deliver_challenge(rank0, invitation.key)
        rank0.send(invitation.rank)
        paths, job = rank0.recv(), rank0.recv()
        process = RankProcess(paths, replace(job, host=host))
        try:
            # Rank 0 says nothing more: when there is something to read, it is that it is gone.
            while rank0 not in wait([rank0, process.connection]):
                heard = process.hear()
                rank0.send(heard)
                if heard != READY:
                    return
        finally:
            process.kill()
            process.close()


def end_when_cut_off(link: socket.socket) -> None:
    """Have a TCP connection end when nothing has come back from the other side for `CUT_OFF_SECONDS`."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_SECONDS)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_SECONDS)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    # Probes are sent only while nothing is under way; this is for what has been sent and is never acknowledged.
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, CUT_OFF_SECONDS * 1000)


def end_all_when_cut_off(host: str) -> None:
    """The same for every TCP connection of this process from ``host``: those of a process group are torch's own."""
    for found in psutil.Process().net_connections("tcp"):
        is_ours = found.laddr.ip.removeprefix("::ffff:") == host
        if is_ours and found.status == psutil.CONN_ESTABLISHED and found.fd >= 0:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(found.fd)) as link:
                end_when_cut_off(link)


def interface_of(host: str) -> str | None:
    """The name of the network interface with that address, if this machine has one."""
    found: dict[str, str] = {each.address: name for name, all_of in psutil.net_if_addrs().items() for each in all_of}
    return found.get(host)


@contextlib.contextmanager
def _impatient(link: socket.socket, seconds: float) -> Iterator[None]:
    """What is read inside must come within that time: `OSError` if it does not."""
    whole, rest = divmod(seconds, 1.0)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(whole), int(rest * 1e6)))
    try:
        yield
    finally:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))
