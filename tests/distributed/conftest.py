"""Workers as threads of this process, for the tests of the control channel."""

import threading

import pytest

from app.distributed import process_group
from app.distributed.local_workers import free_ports
from app.distributed.process_group import ProcessGroup
from app.errors import UserError

HANGS_AFTER_SECONDS = 60


@pytest.fixture(autouse=True)
def no_exit(monkeypatch):
    """Keep a failing process group, and the command line after one, from ending the process of pytest."""
    monkeypatch.setattr(process_group, "GRACE_SECONDS", 3 * HANGS_AFTER_SECONDS)
    monkeypatch.setattr(process_group, "_joined", threading.Event())


def local_addresses(count):
    return [f"localhost:{port}" for port in free_ports(count)]


def start(work, addresses, index, **options):
    """Run a worker's function in a thread; return what waits for its result or exception."""
    outcome = []

    def run():
        try:
            with ProcessGroup(addresses, index, **options) as group:
                outcome.append(work(group))
        except BaseException as error:
            outcome[:] = [error]

    thread = threading.Thread(target=run, name=f"worker {index}", daemon=True)
    thread.start()

    def result():
        thread.join(HANGS_AFTER_SECONDS)
        assert not thread.is_alive(), "a worker hangs"
        return outcome[0]

    return result


def together(*works, addresses=None):
    """Return what each worker's function, given its group, returned or raised."""
    addresses = addresses or local_addresses(len(works))
    waiting = [start(work, addresses, index) for index, work in enumerate(works)]
    return [result() for result in waiting]


def messages(*works):
    """Return the message that each worker ended with, None where it did not; addresses become HOST-0 ..."""
    addresses, found = local_addresses(len(works)), []
    for outcome in together(*works, addresses=addresses):
        text = str(outcome) if isinstance(outcome, UserError) else repr(outcome)
        for number, address in enumerate(addresses):
            text = text.replace(address, f"HOST-{number}")
        found.append(text if isinstance(outcome, BaseException) else None)
    return found
