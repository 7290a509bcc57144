"""The control channel between workers: all get all values, and none waits for one that is gone."""

import contextlib
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from app.distributed import process_group
from app.distributed.connection import Connection
from app.distributed.process_group import ProcessGroup
from app.errors import Interrupted, UserError
from app.paths import module_command
from tests.distributed.conftest import HANGS_AFTER_SECONDS, local_addresses, start, together

WAITING_WORKER = """
import sys, time
from app.distributed import process_group
process_group.GRACE_SECONDS = 0.2
process_group.HEARTBEAT_SECONDS, process_group.LOST_SECONDS = map(float, sys.argv[1:3])
with process_group.ProcessGroup(sys.argv[4:], int(sys.argv[3])):
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def quick_heartbeats(monkeypatch):
    """Heartbeats follow each other quickly, and are soon missed."""
    monkeypatch.setattr(process_group, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(process_group, "LOST_SECONDS", 1.5)


def meet(group):
    return group.all_gather("meeting", group.index)


def assert_refused(outcomes, *words):
    for outcome in outcomes:
        assert type(outcome) is UserError, repr(outcome)
        for word in words:
            assert word in str(outcome)


# Values.


@pytest.mark.parametrize("count", [2, 3])
def test_all_workers_get_all_values_in_order(count):
    def work(group):
        named = [
            group.all_gather("names", f"Zoë {group.index}"),
            group.all_gather("settings", {"of": [group.index]}),
        ]
        return [*named, group.all_gather("chief only", "value" if group.is_chief else None), group.size]

    expected = [
        [f"Zoë {index}" for index in range(count)],
        [{"of": [index]} for index in range(count)],
        ["value"] + [None] * (count - 1),
        count,
    ]
    assert together(*[work] * count) == [expected] * count


def test_large_values_arrive_complete():
    values = [[f"{index}-{number}" * 4 for number in range(40_000)] for index in range(3)]
    assert len(json.dumps(values[0])) > 1_000_000

    def work(group):
        return group.all_gather("large", values[group.index]) == values and meet(group)

    assert together(work, work, work) == [[0, 1, 2]] * 3


def test_workers_come_one_after_the_other(quick_heartbeats):
    addresses = local_addresses(2)
    early = start(meet, addresses, 1)
    time.sleep(0.2)
    assert start(meet, addresses, 0)() == [0, 1] == early()


def test_one_that_came_early_waits_for_one_that_comes_late(quick_heartbeats):
    addresses = local_addresses(3)
    waiting = [start(meet, addresses, index) for index in (0, 1)]
    time.sleep(2.0)  # longer than LOST_SECONDS
    waiting.append(start(meet, addresses, 2))
    assert [result() for result in waiting] == [[0, 1, 2]] * 3


def test_one_alone_needs_no_socket(monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    for group in (ProcessGroup(), ProcessGroup(["a host that is not:0"])):
        with group, group.watched():
            assert group.all_gather("any", {"value": 1}) == [{"value": 1}]
            assert (group.size, group.is_chief) == (1, True)
            group.raise_failure()
    assert not process_group._joined.is_set()


@pytest.mark.parametrize("joined", [True, False])
def test_a_process_of_several_workers_ends_at_once(joined):
    join = "process_group._joined.set()" if joined else ""
    program = f"""
from app.distributed import process_group
{join}
print(process_group.end_process(3, ValueError("of ours")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=module_command("app")[1], capture_output=True, text=True
    )
    expected = (3, "", "ValueError: of ours\n") if joined else (0, "3\n", "")
    assert (done.returncode, done.stdout, done.stderr) == expected


def test_different_topics_are_an_error():
    outcomes = together(lambda group: group.all_gather("data", 1), lambda group: group.all_gather("run", 2))
    assert isinstance(outcomes[0], RuntimeError) and "expected 'data' of worker 1" in str(outcomes[0])
    assert_refused(outcomes[1:], "worker 0 (", "RuntimeError: expected 'data'")


# Who takes part.


def test_a_worker_that_never_comes_is_named():
    addresses = local_addresses(3)
    waiting = [start(meet, addresses, index, join_seconds=0.5) for index in (0, 2)]
    outcomes = [result() for result in waiting]
    assert_refused(outcomes, f"worker 1 ({addresses[1]}) did not come within 0 s", f"{addresses[0]} must be")
    assert f"worker 2 ({addresses[2]})" not in str(outcomes[0])


def test_a_chief_that_never_comes_is_named():
    addresses = local_addresses(2)
    with pytest.raises(UserError, match="Start the same command there") as raised:
        ProcessGroup(addresses, 1, join_seconds=0.5).__enter__()
    assert f"worker 0 ({addresses[0]}) did not answer" in str(raised.value)


def test_waiting_ends_where_there_is_nothing_to_wait_for():
    def check():
        raise UserError("worker 1 has ended already")

    with pytest.raises(UserError, match="^worker 1 has ended already$"):
        ProcessGroup(local_addresses(2), check=check).__enter__()


@pytest.mark.parametrize("difference", ["another port", "another order", "one more"])
def test_different_lists_are_refused(difference):
    ours = local_addresses(3)
    theirs = {
        "another port": [ours[0], ours[1], "localhost:1"],
        "another order": [ours[0], ours[2], ours[1]],
        "one more": [*ours, "localhost:1"],
    }[difference]
    lists = (ours, theirs, ours)
    waiting = [start(meet, addresses, index) for index, addresses in enumerate(lists[:2])]
    assert_refused([result() for result in waiting], ", ".join(ours), ", ".join(theirs), "the same list")


def test_two_with_the_same_index_are_refused():
    addresses = local_addresses(3)
    waiting = [start(meet, addresses, index) for index in (0, 1, 1)]
    assert_refused([result() for result in waiting], "two processes say that they are worker 1", "own index")


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_all_workers_name_a_port_in_use(taken, quick_heartbeats):
    addresses = local_addresses(3)
    with socket.create_server(("127.0.0.1", int(addresses[taken].partition(":")[2]))):
        outcomes = together(meet, meet, meet, addresses=addresses)
    assert_refused(outcomes, addresses[taken])
    assert_refused([outcomes[taken]], "cannot listen at port", "End what uses the port")
    if taken:  # the others are connected to the chief, and get the reason itself
        assert_refused(outcomes, "cannot listen at port")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\xff\xfe\n",
        b"[]\n",
        b"null\n",
        b'{"index": 1}\n',
        b'{"greeting": "another program", "index": 1, "addresses": []}\n',
        b'{"greeting": "image-classification-trainer 1", "index": "1", "addresses": []}\n',
        b"[" * 100_000 + b"\n",
    ],
    ids=lambda sent: sent[:12].decode("latin-1").encode("unicode_escape").decode() or "nothing",
)
def test_a_connection_of_another_program_is_closed(sent):
    addresses = local_addresses(2)
    chief = start(meet, addresses, 0)
    for _ in range(2):
        with connected(addresses[0]) as stranger:
            stranger.sendall(sent)
    with connected(addresses[0]) as stranger:  # says nothing, and resets the connection
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    worker = start(meet, addresses, 1)
    assert [chief(), worker()] == [[0, 1]] * 2


def connected(address):
    """Return a connection to a worker that may not listen yet."""
    host, _, port = address.partition(":")
    for _ in range(200):
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection((host, int(port)))
        time.sleep(0.02)
    raise AssertionError("nobody listens")


# How it ends.


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UserError("no images in there"), "no images in there"),
        (ZeroDivisionError("by 0"), "ZeroDivisionError: by 0"),
    ],
)
def test_an_error_of_one_ends_the_others(index, error, words):
    def work(group):
        if group.index == index:
            raise error
        return meet(group)

    addresses = local_addresses(3)
    outcomes = together(work, work, work, addresses=addresses)
    assert outcomes.pop(index) is error
    assert_refused(outcomes, f"worker {index} ({addresses[index]}): {words}")


def test_an_error_is_raised_where_the_group_was_not_used_since():
    over = threading.Event()

    def chief(group):
        over.wait(HANGS_AFTER_SECONDS)
        group.raise_failure(wait_seconds=HANGS_AFTER_SECONDS)

    def worker(group):
        over.set()
        raise UserError("no images in there")

    assert_refused(together(chief, worker)[:1], "worker 1 (", "no images in there")


@pytest.mark.parametrize("way", ["interrupted", "done"])
@pytest.mark.parametrize("first", [0, 1])
def test_one_that_leaves_does_not_disturb_the_others(first, way):
    gone = threading.Event()

    def leaves(group):
        meet(group)
        if way == "interrupted":
            raise Interrupted("stopped", signal.SIGTERM)

    def stays(group):
        meet(group)
        gone.wait(HANGS_AFTER_SECONDS)
        group.raise_failure(wait_seconds=0.1)
        return "done"

    addresses = local_addresses(2)
    works = [stays, stays]
    works[first] = leaves
    waiting = [start(work, addresses, index) for index, work in enumerate(works)]
    left = waiting[first]()
    gone.set()
    assert isinstance(left, Interrupted) if way == "interrupted" else left is None
    assert waiting[1 - first]() == "done"


def test_one_that_left_is_not_missed_afterwards(quick_heartbeats):
    def work(group, stays):
        if group.index == stays:
            group.raise_failure(wait_seconds=2.0)  # longer than LOST_SECONDS
        return "done"

    waiting = []
    for stays in (0, 1):
        addresses = local_addresses(2)
        waiting += [start(lambda group, who=stays: work(group, who), addresses, i) for i in (0, 1)]
    assert [result() for result in waiting] == ["done"] * 4


def test_no_socket_stays_open():
    groups = together(lambda group: group, lambda group: group)
    assert [each.socket.fileno() for group in groups for each in group._connections.values()] == [-1, -1]


@pytest.mark.parametrize("first", [0, 1])
def test_one_that_leaves_before_the_end_is_named(first, monkeypatch):
    monkeypatch.setattr(process_group, "GRACE_SECONDS", 0.3)

    def work(group):
        return "left" if group.index == first else meet(group)

    outcomes = together(work, work)
    assert outcomes.pop(first) == "left"
    assert_refused(outcomes, f"worker {first} (", "left before the end")


@pytest.mark.parametrize("lost", [0, 1])
def test_advice_comes_with_the_loss_of_a_worker(lost):
    def work(group):
        group.advice = "make resume goes on"
        meet(group)
        if group.index == lost:
            for connection in group._connections.values():
                connection.close()
        return meet(group)

    addresses = local_addresses(2)
    outcomes = together(work, work, addresses=addresses)
    expected = f"worker {lost} ({addresses[lost]}) is gone: its process ended, or the network to it"
    assert_refused([outcomes[1 - lost]], f"{expected}; make resume goes on")


class OpError(Exception):
    """Stands in for TensorFlow's, which takes seconds to import."""


class UnavailableError(OpError):
    pass


def test_an_error_of_tensorflow_is_replaced_by_its_cause():
    def chief(group):
        meet(group)
        with group.watched():
            raise UnavailableError("a stack of C++")

    def worker(group):
        meet(group)
        raise UserError("no space left")

    assert_refused(together(chief, worker)[:1], "worker 1 (", "no space left")


def test_other_errors_stay_what_they_are(monkeypatch):
    monkeypatch.setattr(process_group, "LOST_SECONDS", 0.3)
    finished = threading.Event()
    errors = (UnavailableError("of its own"), ValueError("no operation"))

    def chief(group):
        for error in errors:
            with pytest.raises(type(error)) as raised, group.watched():
                raise error
            assert raised.value is error
        finished.set()
        return "done"

    def worker(group):
        return finished.wait(HANGS_AFTER_SECONDS)

    assert together(chief, worker) == ["done", True]


def test_all_are_told_the_reason_before_the_chief_leaves(monkeypatch):
    send = Connection.send

    def slow(connection, message):
        if "failed" in message:
            time.sleep(0.3)  # in which the chief's main thread must not say goodbye to the others
        send(connection, message)

    def fail(group):
        raise UserError("no space left")

    monkeypatch.setattr(Connection, "send", slow)
    outcomes = together(meet, fail, meet, meet)
    outcomes.pop(1)
    assert_refused(outcomes, "no space left")


# Processes that are killed, or stopped, while their main threads are elsewhere.


@pytest.fixture
def processes():
    """Start workers, each a process of its own, and wait until all have come."""
    children = []

    def begin(count, beat_seconds=5.0, lost_seconds=20.0):
        addresses = local_addresses(count)
        _, environment = module_command("app")
        for index in range(count):
            command = [sys.executable, "-c", WAITING_WORKER, str(beat_seconds), str(lost_seconds), str(index)]
            children.append(
                subprocess.Popen(
                    [*command, *addresses],
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        for child in children:
            assert child.stdout.readline() == "ready\n", child.stderr.read()
        return children, [f"worker {index} ({address})" for index, address in enumerate(addresses)]

    try:
        yield begin
    finally:
        for child in children:
            child.kill()
            child.communicate()


def assert_ended(child, *words):
    _, errors = child.communicate(timeout=10)
    assert child.returncode == UserError.exit_code, errors
    for word in words:
        assert word in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("killed", [0, 2])
def test_a_killed_worker_ends_the_others(processes, killed):
    children, names = processes(3)
    children[killed].kill()
    for index, child in enumerate(children):
        if index != killed:
            assert_ended(child, f"{names[killed]} is gone: its process ended")


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_stopped_worker_is_noticed_by_its_silence(processes, stopped):
    children, names = processes(2, beat_seconds=0.1, lost_seconds=1.0)
    children[stopped].send_signal(signal.SIGSTOP)
    assert_ended(children[1 - stopped], f"{names[stopped]} is gone: nothing was heard of it for 1 s")
    children[stopped].send_signal(signal.SIGCONT)  # and one that wakes up is not left behind
    assert_ended(children[stopped], "worker ")


def test_workers_that_were_paused_together_go_on_together(processes):
    children, _ = processes(3, beat_seconds=0.1, lost_seconds=2.0)
    for number, seconds in ((signal.SIGSTOP, 3.0), (signal.SIGCONT, 3.0)):
        for child in children:
            child.send_signal(number)
        time.sleep(seconds)  # each longer than a worker may be silent
    assert [child.poll() for child in children] == [None] * 3
