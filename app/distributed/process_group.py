"""The process group of a training: its workers, and a control channel between them.

TensorFlow and JAX sum gradients over the workers. The control channel, a connection from every worker to the
chief, carries the rest: who takes part, whether all have the same code, data and versions, when to save or
stop, and that a worker is gone. It uses the chief's address before TensorFlow does, and no other.
"""

import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from app.distributed.connection import Connection, beats, connect, listener
from app.errors import Interrupted, UserError

JOIN_SECONDS = 120.0  # to wait for the other workers
HEARTBEAT_SECONDS = 5.0
LOST_SECONDS = 20.0  # without a message; a process that ends is noticed at once
GRACE_SECONDS = 2.0  # for the main thread, which may be held up inside TensorFlow, to end by itself
_BACKEND_ERRORS = {"OpError", "JaxRuntimeError"}
_GREETING = "image-classification-trainer 1"
_joined = threading.Event()  # this process is, or was, one of several workers


class ProcessGroup:
    """The workers of a training, in order; the first is the chief, which writes the run folder.

    Entering the context connects them. When a worker is lost or fails, all others end: by a `UserError` where
    the main thread uses the group, else, GRACE_SECONDS later, by the same message and the end of the process.

    Args:
        addresses: host:port of every worker; a single one needs no address.
        index: Which of them this process is.
        join_seconds: How long to wait for the others.
        check: Called while waiting for the others; raises where they cannot come.
        num_local: Number of workers that `local_workers` started on this machine, 0 where it did not.
    """

    def __init__(
        self,
        addresses: Sequence[str] = ("",),
        index: int = 0,
        join_seconds: float = JOIN_SECONDS,
        check: Callable[[], None] = lambda: None,
        num_local: int = 0,
    ):
        self.addresses, self.index = tuple(addresses), index
        self.join_seconds, self.check, self.num_local = join_seconds, check, num_local
        self.grace_seconds = GRACE_SECONDS
        self.advice = ""  # added to the message when a worker is gone
        self._connections: dict[int, Connection] = {}
        self._failure = ""  # why all workers end, where they do
        self._failing = threading.Lock()  # held from the first failure on
        self._failed = threading.Event()
        self._done = threading.Event()  # the main thread has raised the failure, or the context has ended

    @property
    def size(self) -> int:
        """The number of workers."""
        return len(self.addresses)

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes the run folder."""
        return self.index == 0

    def name(self, index: int) -> str:
        """Return how messages call a worker."""
        return f"worker {index} ({self.addresses[index]})"

    def __enter__(self) -> Self:
        """Wait for all workers.

        Raises:
            UserError: A worker does not come in time, has other addresses, or a port is in use.
        """
        if self.size > 1:
            _joined.set()
            try:
                self._accept_all() if self.is_chief else self._connect()
                for connection in self._connections.values():
                    connection.start()
                threading.Thread(target=self._send_heartbeats, daemon=True).start()
                self.all_gather("present", True)
                if not self.is_chief:
                    listener(self.addresses[self.index]).close()  # is the port free for TensorFlow?
            except BaseException as error:
                self.__exit__(type(error), error, None)
                raise
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: object) -> None:
        """Close the connections; send the others the reason, if this worker ends with an error."""
        self._done.set()
        message: dict[str, Any] = {"bye": True}
        if error is not None and not isinstance(error, Interrupted) and not self._failed.is_set():
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            if isinstance(error, KeyboardInterrupt):
                reason = f"stopped; {self.advice}" if self.advice else "stopped before the training began"
            names_worker = reason.startswith("worker ")  # as a comparison of workers does
            message = {"failed": reason if names_worker else f"{self.name(self.index)}: {reason}"}
        for connection in self._connections.values():
            connection.send(message)
            connection.close()

    def all_gather(self, topic: str, value: Any) -> list[Any]:
        """Return the values of all workers, in order; they can be anything that JSON holds.

        Raises:
            UserError: A worker is gone or has ended with an error.
        """
        if self.size == 1:
            return [value]
        if self.is_chief:
            values = [value, *(self._receive(self._connections[i], topic) for i in range(1, self.size))]
            for connection in self._connections.values():
                connection.send({"topic": topic, "value": values})
            return values
        self._connections[0].send({"topic": topic, "value": value})
        return self._receive(self._connections[0], topic)

    def raise_failure(self, wait_seconds: float = 0.0) -> None:
        """Raise the failure of the group, if it becomes known within `wait_seconds`."""
        if self._failed.wait(wait_seconds):
            self._done.set()
            raise UserError(self._failure)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Replace an error of TensorFlow or JAX by its cause, where that is the loss of another worker."""
        try:
            yield
        except Exception as error:
            if self.size > 1 and _BACKEND_ERRORS & {kind.__name__ for kind in type(error).__mro__}:
                self.raise_failure(wait_seconds=LOST_SECONDS)
            raise

    def _receive(self, connection: Connection, topic: str) -> Any:
        message = connection.inbox.get()
        if message is None:
            connection.inbox.put(None)  # for the next call
            self.raise_failure(wait_seconds=GRACE_SECONDS)
            raise UserError(f"{self.name(connection.index)} left before the end")
        if message["topic"] != topic:
            raise RuntimeError(f"expected {topic!r} of {self.name(connection.index)}, received {message!r}")
        return message["value"]

    def _accept_all(self) -> None:
        """Wait for the other workers to connect to the chief."""
        begin = last_print = time.monotonic()
        with listener(self.addresses[0]) as server:
            server.settimeout(1.0)
            while len(self._connections) < self.size - 1:
                self.check()
                for connection in self._connections.values():
                    connection.send({"beat": True})
                now = time.monotonic()
                missing = [self.name(i) for i in range(1, self.size) if i not in self._connections]
                if now - begin > self.join_seconds:
                    raise UserError(
                        f"{', '.join(missing)} did not come within {self.join_seconds:.0f} s. Start the same "
                        f"command on every machine; from there {self.addresses[0]} must be reachable"
                    )
                if now - last_print > 10:
                    last_print = now
                    print(f"waiting for {', '.join(missing)}", file=sys.stderr, flush=True)
                with contextlib.suppress(TimeoutError):
                    self._accept(server.accept()[0])

    def _accept(self, client: socket.socket) -> None:
        """Add a worker, or close a connection that is not from a worker."""
        connection = Connection(client, -1, self._fail, self._fail_without)
        try:
            hello = connection.read(timeout_seconds=5.0)
            index = hello["index"]
            if hello["greeting"] != _GREETING or not isinstance(index, int):
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            connection.close()
            return
        connection.index = index
        if tuple(hello["addresses"]) != self.addresses:
            refusal = (
                f"worker {index} was told of the workers {', '.join(hello['addresses'])}, worker 0 of "
                f"{', '.join(self.addresses)}; give all of them the same list"
            )
        elif not 0 < index < self.size or index in self._connections:
            refusal = f"two processes say that they are worker {index}; give each its own index"
        else:
            self._connections[index] = connection
            return
        connection.send({"failed": refusal})
        connection.close()
        raise UserError(refusal)

    def _connect(self) -> None:
        """Connect to the chief."""
        try:
            client = connect(self.addresses[0], self.join_seconds)
        except OSError as error:
            raise UserError(
                f"{self.name(0)} did not answer within {self.join_seconds:.0f} s ({error}). Start "
                "the same command there, and see that its address can be reached from here"
            ) from error
        connection = self._connections[0] = Connection(client, 0, self._fail, self._fail_without)
        connection.send({"greeting": _GREETING, "index": self.index, "addresses": self.addresses})

    def _send_heartbeats(self) -> None:
        """Send a message every HEARTBEAT_SECONDS, and notice workers that send none."""
        for late in beats(self._done, HEARTBEAT_SECONDS, LOST_SECONDS / 2):
            for index, connection in self._connections.items():
                if late:  # paused, and the others perhaps with it: they have had no time to say anything
                    connection.received_at = time.monotonic()
                if not connection.said_bye and time.monotonic() - connection.received_at > LOST_SECONDS:
                    self._fail_without(index, f"nothing was heard of it for {LOST_SECONDS:.0f} s")
                connection.send({"beat": True})

    def _fail_without(self, index: int, reason: str) -> None:
        """End all workers because one is gone."""
        advice = f"; {self.advice}" if self.advice else ""
        self._fail(f"{self.name(index)} is gone: {reason}{advice}")

    def _fail(self, message: str) -> None:
        """End this worker, and through the chief all others, with a message; called from other threads."""
        if self._done.is_set() or not self._failing.acquire(blocking=False):
            return
        self._failure = message
        threading.Thread(target=self._exit_after_grace, daemon=True).start()
        if self.is_chief:  # all must know the reason before the main thread does, which leaves with a bye
            for connection in self._connections.values():
                connection.send({"failed": message})
        self._failed.set()
        for connection in self._connections.values():
            connection.inbox.put(None)

    def _exit_after_grace(self) -> None:
        """End the process unless its main thread does; an operation of TensorFlow cannot be interrupted."""
        if not self._done.wait(self.grace_seconds):
            print(self._failure, file=sys.stderr, flush=True)
            end_process(UserError.exit_code)


def end_process(code: int, error: Exception | None = None) -> int:
    """End the process at once if it was one of several workers, else return the exit code.

    The traceback of `error` is printed before. TensorFlow would wait up to half a minute for its pipelines
    and for workers that have left.
    """
    if _joined.is_set():
        if error:
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
