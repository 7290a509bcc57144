"""The process group: from TF_CONFIG, from Slurm, or of workers started on this machine."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.distributed.cluster import config_of, find_group
from app.distributed.devices import set_up
from app.distributed.local_workers import local_workers, progress_output, worker_log
from app.errors import UserError
from app.paths import module_command

ALONE = (("",), 0)
TWO = {"worker": ["host-a:2345", "host-b:2345"]}


def found(environment=os.environ):
    group = find_group(environment)
    return group.addresses, group.index


def tf_config(cluster, kind="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ALONE),
        ({"TF_CONFIG": ""}, ALONE),
        ({"TF_CONFIG": " \n"}, ALONE),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, ALONE),
        ({"SLURM_STEP_NUM_TASKS": "4"}, ALONE),  # of an allocation, outside of any step
        (tf_config(TWO), (("host-a:2345", "host-b:2345"), 0)),
        (tf_config(TWO, index=1), (("host-a:2345", "host-b:2345"), 1)),
        (tf_config(TWO, index="1"), (("host-a:2345", "host-b:2345"), 1)),
        (tf_config({"worker": ["host-a:1"]}), (("host-a:1",), 0)),
        (tf_config(TWO | {"chief": ["host-z:1"]}, "chief"), (("host-z:1", *TWO["worker"]), 0)),
        (tf_config({"chief": ["host-z:1"]} | TWO, index=1), (("host-z:1", *TWO["worker"]), 2)),
        (tf_config({"worker": ["[::1]:2345", "10.0.0.2:65535"]}), (("[::1]:2345", "10.0.0.2:65535"), 0)),
        (tf_config(TWO) | {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3"}, (tuple(TWO["worker"]), 0)),
    ],
)
def test_the_environment_names_the_workers(environment, expected):
    assert found(environment) == expected


@pytest.mark.parametrize("number", ["two", "1.5"])
def test_variables_of_slurm_that_are_no_numbers(number):
    with pytest.raises(UserError, match="SLURM_STEP_NUM_TASKS: must be a whole number; got"):
        find_group({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": number})


def test_config_of_local_workers_is_read_back():
    addresses = ("localhost:1111", "localhost:2222", "localhost:3333")
    environment = {"TF_CONFIG": config_of(addresses, 2)}
    assert found(environment) == (addresses, 2) and find_group(environment).num_local == 0
    group = find_group(environment | {"TRAINER_LOCAL_WORKER": "3"})
    assert group.num_local == 3 and progress_output(group, "tiny") is sys.stdout


def test_more_local_workers_than_gpus(monkeypatch):
    monkeypatch.setattr("tensorflow.config.get_visible_devices", lambda kind: ["the only one"])
    group = find_group(
        {"TF_CONFIG": config_of(("localhost:1", "localhost:2"), 1), "TRAINER_LOCAL_WORKER": "2"}
    )
    with pytest.raises(UserError, match="WORKERS=2: each worker needs a GPU, and this machine has 1"):
        set_up(group)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("worker 0 of 2", "Expecting value"),
        ('{"cluster": ', "Expecting value"),
        ("[]", "indices must be"),
        ("null", "not subscriptable"),
        (json.dumps({"task": {"type": "worker", "index": 0}}), "'cluster' is missing"),
        (json.dumps({"cluster": TWO}), "'task' is missing"),
        (json.dumps({"cluster": TWO, "task": {"type": "worker"}}), "'index' is missing"),
        (json.dumps({"cluster": TWO, "task": {"index": 0}}), "'type' is missing"),
        (json.dumps({"cluster": TWO, "task": {"type": "worker", "index": "first"}}), "'first'"),
        (json.dumps({"cluster": [TWO], "task": {"type": "worker", "index": 0}}), "'list'"),
        (tf_config({"worker": ["host-a"]}), "host:port, received 'host-a'"),
        (tf_config({"worker": "host-a:1"}), "host:port, received 'h'"),
        (tf_config({"worker": [":2345"]}), "host:port, received ':2345'"),
        (tf_config({"worker": ["host..a:2345"]}), "host:port, received 'host..a:2345'"),
        (tf_config({"worker": ["host-a:0"]}), "host:port, received 'host-a:0'"),
        (tf_config({"worker": ["host-a:65536"]}), "host:port, received 'host-a:65536'"),
        (tf_config({"worker": ["host-a:http"]}), "'http'"),
        (tf_config(TWO | {"ps": ["host-p:1"]}), "tasks of the kind ps;"),
        (tf_config(TWO | {"ps": ["host-p:1"], "evaluator": ["host-e:1"]}), "of the kind evaluator, ps;"),
        (tf_config(TWO | {"chief": ["host-y:1", "host-z:1"]}), "received 2 chiefs"),
        (tf_config(TWO, index=2), "worker 2, which is not in the cluster"),
        (tf_config(TWO, index=-1), "worker -1, which is not in the cluster"),
        (tf_config(TWO, "chief"), "chief 0, which is not in the cluster"),
        (tf_config({}), "worker 0, which is not in the cluster"),
        (tf_config({"worker": ["host-a:1", "host-b:1", "host-a:1"]}), "address twice in host-a:1, host-b:1"),
        (tf_config({"chief": ["host-a:1"], "worker": ["host-a:1"]}), "address twice in host-a:1, host-a:1"),
        (tf_config(TWO, ["worker"]), "worker"),
        (tf_config(TWO, index=float("inf")), "infinity"),
        ("[" * 100_000, "recursion"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_malformed_tf_config_is_refused(text, words):
    environment = text if isinstance(text, dict) else {"TF_CONFIG": text}
    with pytest.raises(UserError, match="^TF_CONFIG: ") as raised:
        find_group(environment)
    assert words in str(raised.value)


# Workers on this machine.


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINER_HOME", str(tmp_path))
    monkeypatch.delenv("TF_CONFIG", raising=False)
    return tmp_path


def test_no_two_workers_write_the_same_log(home, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda _: "20250102-030405")  # all within one second
    with ThreadPoolExecutor(8) as pool:
        logs = [*pool.map(lambda _: worker_log("tiny", 1), range(40)), worker_log("tiny", 2)]
    assert len(set(logs)) == len(logs) == len(list((home / "runs" / "workers").iterdir()))
    assert {logs[0].name, logs[-1].name} <= {path.name for path in (home / "runs" / "workers").iterdir()}
    assert all(path.suffix == ".log" and "tiny" in path.name for path in logs)


def test_one_worker_starts_nothing(home):
    with local_workers(1, ["no-such-verb"], "tiny") as group:
        assert (group.size, group.num_local) == (1, 0) and not list(home.iterdir())


@pytest.mark.parametrize(
    ("count", "config", "words"),
    [
        (0, "", "WORKERS=0: choose 1 to "),
        (-2, "", "WORKERS=-2: choose 1 to "),
        (100_000, "", "WORKERS=100000: choose 1 to "),
        (
            2,
            config_of(["host-a:1", "host-b:1"], 0),
            "WORKERS=2: starts workers on this machine, but TF_CONFIG",
        ),
    ],
)
def test_workers_that_cannot_be_are_refused_before_anything_starts(home, monkeypatch, count, config, words):
    monkeypatch.setattr(subprocess, "Popen", None)
    if config:
        monkeypatch.setenv("TF_CONFIG", config)
    before = dict(os.environ)
    with pytest.raises(UserError) as raised, local_workers(count, ["train", "tiny"], "tiny"):
        raise AssertionError("the work began")
    assert words in str(raised.value)
    assert dict(os.environ) == before and not list(home.iterdir())


@pytest.fixture
def cores():
    """The cores of this process, which starting local workers takes from it."""
    before = os.sched_getaffinity(0)
    yield before
    os.sched_setaffinity(0, before)


def test_a_local_worker_that_ends_at_once_is_named(home, cores, capsys):
    with local_workers(2, ["no-such-verb"], "tiny") as group:
        assert (group.size, group.index, group.num_local) == (2, 0, 2)
        assert found() == (group.addresses, 0)  # TensorFlow reads the same
        with pytest.raises(UserError, match="^worker 1 ended with code 2 before it came; see its log$"):
            group.__enter__()
    (log,) = (home / "runs" / "workers").iterdir()
    assert "no-such-verb" in log.read_text() and log.name in capsys.readouterr().out
    assert found() == ALONE


def test_the_chief_gets_its_cores_back(home, cores):
    if len(cores) < 2:
        pytest.skip("one core cannot be shared")
    with local_workers(2, ["--help"], "tiny"):
        assert os.sched_getaffinity(0) < cores
    assert os.sched_getaffinity(0) == cores


# Slurm.

SLURM = """
import json, os
from app.distributed.cluster import find_group
steps = (
    {"PROCID": "1", "STEP_NUM_TASKS": "3", "STEP_NODELIST": "node[1-2]", "STEP_TASKS_PER_NODE": "2,1"},
    {"PROCID": "0", "STEP_NUM_TASKS": "2", "STEP_NODELIST": "node[9-10]", "STEP_TASKS_PER_NODE": "1(x2)"},
)
for step in steps:
    os.environ.pop("TF_CONFIG", None)
    os.environ.update({f"SLURM_{name}": value for name, value in step.items()})
    found, again = find_group(), find_group()
    config = json.loads(os.environ["TF_CONFIG"])
    same = (again.addresses, again.index) == (found.addresses, found.index)
    print(json.dumps([found.addresses, found.index, config, same]))
del os.environ["TF_CONFIG"], os.environ["SLURM_STEP_NODELIST"]
try:
    find_group()
except ValueError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


@pytest.mark.slow
def test_slurm_names_the_workers_and_counts_its_nodes_in_their_order():
    _, environment = module_command("app")
    for name in [name for name in environment if name.startswith("SLURM_") or name == "TF_CONFIG"]:
        del environment[name]
    done = subprocess.run(
        [sys.executable, "-c", SLURM], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    first, second, (kind, message) = map(json.loads, done.stdout.splitlines())
    addresses = ["node1:8888", "node1:8889", "node2:8888"]
    task = {"type": "worker", "index": 1}
    assert first == [addresses, 1, {"cluster": {"worker": addresses}, "task": task}, True]
    assert second[:2] == [["node9:8888", "node10:8888"], 0]
    # Without its variables it is refused.
    assert kind == "UserError" and message.startswith("Slurm: ")
    assert "SLURM_STEP_NODELIST" in message and "set TF_CONFIG" in message


@pytest.mark.parametrize(("proxy", "asked"), [({}, None), ({"https_proxy": "http://proxy:3128"}, "")])
def test_workers_do_not_ask_a_proxy_for_each_other(monkeypatch, proxy, asked):
    monkeypatch.setenv("grpc_proxy", "")  # put back what is there when the test ends
    monkeypatch.delenv("grpc_proxy")
    find_group({"TF_CONFIG": config_of(["a:1", "b:2"], 0), **proxy})
    assert os.environ.get("grpc_proxy") == asked


def test_the_chief_of_local_workers_does_not_ask_a_proxy_either(home, monkeypatch):
    monkeypatch.setenv("grpc_proxy", "")
    monkeypatch.delenv("grpc_proxy")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    with local_workers(2, ["--help"], "tiny"):
        assert os.environ["grpc_proxy"] == ""
