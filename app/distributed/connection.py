"""A connection between two workers, and the socket that listens for it."""

import contextlib
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from app.errors import UserError


class Connection:
    """A connection to one worker, over which JSON objects are sent, one a line; a thread reads them.

    Args:
        client: The connected socket.
        index: The worker at the other end.
        on_failure: Called by the thread with the reason that a failing worker sends.
        on_loss: Called by the thread with index and reason where the connection breaks.
    """

    def __init__(
        self,
        client: socket.socket,
        index: int,
        on_failure: Callable[[str], None],
        on_loss: Callable[[int, str], None],
    ):
        client.settimeout(None)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket, self.index = client, index
        self.on_failure, self.on_loss = on_failure, on_loss
        self.file = client.makefile("rb")
        self.inbox: queue.SimpleQueue = queue.SimpleQueue()
        self.received_at = time.monotonic()
        self.sending = threading.Lock()
        self.said_bye = False

    def start(self) -> None:
        """Start the thread that reads."""
        self.received_at = time.monotonic()
        threading.Thread(target=self._read_all, daemon=True).start()

    def read(self, timeout_seconds: float | None = None) -> dict[str, Any]:
        """Return the next message."""
        self.socket.settimeout(timeout_seconds)
        text = self.file.readline(1 << 26)
        self.socket.settimeout(None)
        if not text:
            raise ConnectionError("closed")
        return json.loads(text)

    def _read_all(self) -> None:
        try:
            for message in iter(self.read, None):
                self.received_at = time.monotonic()
                if "failed" in message:
                    self.on_failure(message["failed"])
                    return
                self.said_bye = self.said_bye or "bye" in message
                if "topic" in message:
                    self.inbox.put(message)
        except (OSError, ValueError):
            if self.said_bye:
                self.inbox.put(None)
            else:
                self.on_loss(self.index, "its process ended, or the network to it")

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; that a worker is gone is noticed by reading."""
        if self.sending.acquire(timeout=1.0):  # a worker that hangs must not make this one hang
            try:
                with contextlib.suppress(OSError):
                    self.socket.sendall(json.dumps(message).encode() + b"\n")
            finally:
                self.sending.release()

    def close(self) -> None:
        """Close the socket and its file."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.file.close()
        self.socket.close()


def beats(ended: threading.Event, seconds: float, late_seconds: float) -> Iterator[bool]:
    """Yield every `seconds`, until `ended`, whether this process was held up for `late_seconds` or more."""
    while True:
        began = time.monotonic()
        if ended.wait(seconds):
            return
        yield time.monotonic() - began > seconds + late_seconds


def endpoint(address: str) -> tuple[str, int]:
    """Return host and port of host:port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def connect(address: str, seconds: float) -> socket.socket:
    """Return a connection to an address, where nothing may listen yet.

    Raises:
        OSError: Nothing did within `seconds`.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(endpoint(address), timeout=5.0)
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(0.2)


def listener(address: str) -> socket.socket:
    """Return a socket that listens at an address of this machine.

    Raises:
        UserError: The port is in use, or not allowed.
    """
    host, port = endpoint(address)
    try:
        if host in ("localhost", "127.0.0.1"):
            return socket.create_server(("127.0.0.1", port))
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(
            f"{address}: this worker cannot listen at port {port} of this machine ({reason}). "
            "End what uses the port, or give the workers other ports"
        ) from error
