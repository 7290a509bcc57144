"""The worker processes of one training, and the line between them that TensorFlow does not offer.

TensorFlow adds up gradients between workers; this line, from every worker to the chief, carries what must be
settled before that and beside it: who takes part, whether all have the same code, data and versions, when to
save or stop, and that a worker is gone. It uses the address that TensorFlow uses afterwards, and no other.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, Self

from app.distributed.connection import Connection, endpoint, listener
from app.errors import Interrupted, UserError

JOIN_SECONDS = 120.0  # a worker that has not come by then will not come
BEAT_SECONDS = 5.0
LOST_SECONDS = 20.0  # of silence; a process that ends is noticed at once
GRACE_SECONDS = 2.0  # for the main thread, which may be held up inside TensorFlow, to end by itself
_ENGINE_ERRORS = {"OpError", "JaxRuntimeError"}
_GREETING = "image-classification-trainer 1"


class ProcessGroup:
    """The workers of a training, in order; the first is the chief, which writes the run folder.

    A worker that is gone, or that ends with an error, ends all others: by a `UserError` where the main thread
    uses the group, else, GRACE_SECONDS later, by the same message and the end of the process.

    Args:
        addresses: host:port of every worker; one alone needs no line and no address.
        index: Which of them this process is.
        join_seconds: How long to wait for the others.
        check: Called while waiting; raises where there is nothing to wait for.
    """

    opened = False  # whether this process has been one of several workers

    def __init__(
        self,
        addresses: Sequence[str] = ("",),
        index: int = 0,
        join_seconds: float = JOIN_SECONDS,
        check: Callable[[], None] = lambda: None,
    ):
        """Keep the arguments; entering the context opens the line."""
        self.addresses, self.index = tuple(addresses), index
        self.join_seconds, self.check = join_seconds, check
        self.grace_seconds = GRACE_SECONDS
        self.advice = ""  # added to the message when a worker is gone
        self._lines: dict[int, Connection] = {}
        self._failure: str | None = None
        self._settled = threading.Event()  # the main thread knows of the failure, or the work is over

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
            ProcessGroup.opened = True
            try:
                if self.is_chief:
                    self._gather()
                else:
                    self._join()
                for line in self._lines.values():
                    line.start()
                threading.Thread(target=self._watch, daemon=True).start()
                self.all_gather("present", True)
                if not self.is_chief:
                    listener(self.addresses[self.index]).close()  # is the port free for TensorFlow?
            except BaseException as error:
                self.__exit__(type(error), error, None)
                raise
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: object) -> None:
        """Close the line; tell the others why, if this worker ends with an error."""
        self._settled.set()
        told: dict[str, Any] = {"bye": True}
        if error is not None and not isinstance(error, Interrupted) and self._failure is None:
            words = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            if isinstance(error, KeyboardInterrupt):
                words = "stopped before the training began"
            # A comparison of workers names one already.
            told = {"failed": words if words.startswith("worker ") else f"{self.name(self.index)}: {words}"}
        for line in self._lines.values():
            line.send(told)
            line.close()

    def all_gather(self, topic: str, value: Any) -> list[Any]:
        """Give every worker's value, anything that JSON can hold, to all; waits for all of them.

        Raises:
            UserError: A worker is gone or has ended with an error.
        """
        if self.size == 1:
            return [value]
        if self.is_chief:
            values = [value, *(self._receive(self._lines[i], topic) for i in range(1, self.size))]
            for line in self._lines.values():
                line.send({"topic": topic, "value": values})
            return values
        self._lines[0].send({"topic": topic, "value": value})
        return self._receive(self._lines[0], topic)

    def fail_if_gone(self, wait_seconds: float = 0.0) -> None:
        """Raise what ended the group, if it becomes known within so many seconds."""
        end = time.monotonic() + wait_seconds
        while self._failure is None and time.monotonic() < end:
            time.sleep(0.05)
        if self._failure is not None:
            self._settled.set()
            raise UserError(self._failure)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Replace an error of TensorFlow or JAX by what became of another worker, its cause."""
        try:
            yield
        except Exception as error:
            if self.size > 1 and _ENGINE_ERRORS & {kind.__name__ for kind in type(error).__mro__}:
                self.fail_if_gone(wait_seconds=LOST_SECONDS)
            raise

    def _receive(self, line: Connection, topic: str) -> Any:
        message = line.inbox.get()
        if message is None:
            line.inbox.put(None)  # for whoever asks again
            self.fail_if_gone(wait_seconds=GRACE_SECONDS)
            raise UserError(f"{self.name(line.index)} left before the end")
        if message.get("topic") != topic:
            raise RuntimeError(f"expected {topic!r} of {self.name(line.index)}, received {message!r}")
        return message["value"]

    def _gather(self) -> None:
        """Wait for the workers at the chief's address."""
        begin = told = time.monotonic()
        with listener(self.addresses[0]) as door:
            door.settimeout(1.0)
            while len(self._lines) < self.size - 1:
                self.check()
                for line in self._lines.values():
                    line.send({"beat": True})
                now = time.monotonic()
                missing = [self.name(i) for i in range(1, self.size) if i not in self._lines]
                if now - begin > self.join_seconds:
                    raise UserError(
                        f"{', '.join(missing)} did not come within {self.join_seconds:.0f} s. Start the same "
                        f"command on every machine; from there {self.addresses[0]} must be reachable"
                    )
                if now - told > 10:
                    told = now
                    print(f"waiting for {', '.join(missing)}", file=sys.stderr, flush=True)
                with contextlib.suppress(TimeoutError):
                    self._welcome(door.accept()[0])

    def _welcome(self, connection: socket.socket) -> None:
        """Take in a worker, or drop a connection that is no worker's."""
        line = self._line(connection, -1)
        try:
            hello = line.read(timeout_seconds=5.0)
            index = hello["index"]
            if hello["greeting"] != _GREETING or not isinstance(index, int):
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            line.close()
            return
        line.index = index
        refusal = None
        if tuple(hello["addresses"]) != self.addresses:
            refusal = (
                f"worker {index} was told of the workers {', '.join(hello['addresses'])}, worker 0 of "
                f"{', '.join(self.addresses)}; give all of them the same list"
            )
        elif not 0 < index < self.size or index in self._lines:
            refusal = f"two processes say that they are worker {index}; give each its own index"
        if refusal:
            line.send({"failed": refusal})
            line.close()
            raise UserError(refusal)
        self._lines[index] = line

    def _join(self) -> None:
        """Open the line to the chief."""
        end = time.monotonic() + self.join_seconds
        while True:
            try:
                connection = socket.create_connection(endpoint(self.addresses[0]), timeout=5.0)
                break
            except OSError as error:
                if time.monotonic() > end:
                    raise UserError(
                        f"{self.name(0)} did not answer within {self.join_seconds:.0f} s ({error}). Start "
                        "the same command there, and see that its address can be reached from here"
                    ) from error
                time.sleep(0.2)
        line = self._lines[0] = self._line(connection, 0)
        line.send({"greeting": _GREETING, "index": self.index, "addresses": self.addresses})

    def _line(self, connection: socket.socket, index: int) -> Connection:
        return Connection(connection, index, on_failure=self.fail, on_loss=self.lose)

    def _watch(self) -> None:
        """Send a sign of life now and then, and look for those of the others."""
        while not self._settled.wait(BEAT_SECONDS):
            for line in self._lines.values():
                if not line.said_bye and time.monotonic() - line.heard_at > LOST_SECONDS:
                    self.lose(line.index, f"nothing was heard of it for {LOST_SECONDS:.0f} s")
                line.send({"beat": True})

    def lose(self, index: int, why: str) -> None:
        """End this worker, and through the chief all others, because one is gone."""
        advice = f"; {self.advice}" if self.advice else ""
        self.fail(f"{self.name(index)} is gone: {why}{advice}")

    def fail(self, message: str) -> None:
        """End this worker, and through the chief all others, with a message; called from other threads."""
        if self._settled.is_set() or self._failure is not None:
            return
        self._failure = message
        if self.is_chief:
            for line in self._lines.values():
                line.send({"failed": message})
        for line in self._lines.values():
            line.inbox.put(None)
        threading.Thread(target=self._end_process, daemon=True).start()

    def _end_process(self) -> NoReturn | None:
        """End the process unless its main thread does; an operation of TensorFlow cannot be interrupted."""
        if self._settled.wait(self.grace_seconds):
            return None
        print(self._failure, file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(UserError.exit_code)
