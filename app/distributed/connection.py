"""A connection between two workers, and the sockets that it begins with."""

import contextlib
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from app.errors import UserError


class Connection:
    """A connection to one worker: a JSON object a line, read by a thread.

    Args:
        connection: The socket.
        index: The worker at the other end.
        on_failure: Called, from the thread, with what a worker that ends says is the reason.
        on_loss: Called, from the thread, where the connection ends without a word.
    """

    def __init__(
        self,
        connection: socket.socket,
        index: int,
        on_failure: Callable[[str], None],
        on_loss: Callable[[int, str], None],
    ):
        """Take over the connection; `start` begins to read from it."""
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection, self.index = connection, index
        self.on_failure, self.on_loss = on_failure, on_loss
        self.file = connection.makefile("rb")
        self.inbox: queue.SimpleQueue = queue.SimpleQueue()
        self.heard_at = time.monotonic()
        self.sending = threading.Lock()
        self.said_bye = False

    def start(self) -> None:
        """Read from now on."""
        self.heard_at = time.monotonic()
        threading.Thread(target=self._listen, daemon=True).start()

    def read(self, timeout_seconds: float | None = None) -> dict[str, Any]:
        """Return the next message."""
        self.connection.settimeout(timeout_seconds)
        text = self.file.readline(1 << 26)
        self.connection.settimeout(None)
        if not text:
            raise ConnectionError("closed")
        return json.loads(text)

    def _listen(self) -> None:
        try:
            for message in iter(self.read, None):
                self.heard_at = time.monotonic()
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
        """Send a message; whoever is gone is found out by reading."""
        if self.sending.acquire(timeout=1.0):  # a worker that hangs must not make this one hang
            try:
                with contextlib.suppress(OSError):
                    self.connection.sendall(json.dumps(message).encode() + b"\n")
            finally:
                self.sending.release()

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.file.close()
        self.connection.close()


def endpoint(address: str) -> tuple[str, int]:
    """Return host and port of host:port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def listener(address: str) -> socket.socket:
    """Return a socket that listens at an address of this machine.

    Raises:
        UserError: Something else does.
    """
    host, port = endpoint(address)
    local = host in ("localhost", "127.0.0.1")
    try:
        if local:
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
