import json
import os
import socket
import threading

import pytest
from support import DATA, SAMPLE
from typer.testing import CliRunner

from synthgen.cli.app import app
from synthgen.errors import TrainingError, UsageError
from synthgen.model.recipe import load_recipe
from synthgen.training.adversarial import plan_training
from synthgen.training.run import train
from synthgen.training.strategy import Strategy, choose_strategy, wait_for_workers, workers_in_reach

CLUSTER = {"worker": ["a:1", "b:2"]}


def cluster(jobs: object, kind: str = "worker", index: object = 0) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})}


def test_mirrored_is_of_this_machine():
    assert choose_strategy("mirrored", 3, {}) == Strategy(name="mirrored", replicas=3)
    assert choose_strategy("mirrored", environment=cluster(CLUSTER, index=1)).is_chief


def test_one_worker_is_the_chief():
    with_chief = {"chief": ["c:0"], **CLUSTER}
    roles = [(CLUSTER, "worker", 0), (CLUSTER, "worker", 1), (with_chief, "chief", 0), (with_chief, "worker", 0)]
    chosen = [choose_strategy("multi-worker", environment=cluster(*role)) for role in roles]
    assert [strategy.is_chief for strategy in chosen] == [True, False, True, False]
    assert [strategy.workers for strategy in chosen] == [2, 2, 3, 3]
    assert [(strategy.address, strategy.others) for strategy in chosen] == [
        ("a:1", ("b:2",)),
        ("b:2", ("a:1",)),
        ("c:0", ("a:1", "b:2")),
        ("a:1", ("c:0", "b:2")),
    ]
    assert {strategy.timeout for strategy in chosen} == {600}


@pytest.mark.parametrize(
    ("name", "replicas", "environment", "words"),
    [
        ("sharded", None, {}, "strategy 'sharded': expected one of mirrored, multi-worker"),
        ("mirrored", 0, {}, "replicas 0: expected 1 to 1024"),
        ("multi-worker", 2, cluster(CLUSTER), "goes with the strategy mirrored"),
        ("multi-worker", None, {}, r"TF_CONFIG is not set.*\"cluster\""),
        ("multi-worker", None, {"TF_CONFIG": "{"}, "expected as in"),
        ("multi-worker", None, {"TF_CONFIG": "[]"}, "expected as in"),
        ("multi-worker", None, cluster({"worker": "a:1"}), "no list of addresses"),
        ("multi-worker", None, cluster({"worker": ["a"]}), "'a' is no HOST:PORT"),
        ("multi-worker", None, cluster(CLUSTER, index=2), "task worker 2"),
        ("multi-worker", None, cluster(CLUSTER) | {"SYNTHGEN_WORKERS_TIMEOUT": "soon"}, "expected a number of seconds"),
        ("multi-worker", None, cluster({"ps": ["a:1"], **CLUSTER}, "ps"), "task ps 0"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(name, replicas, environment, words):
    with pytest.raises(UsageError, match=words) as refused:
        choose_strategy(name, replicas, environment)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--strategy", "mirrored"], "recipe 'private' is private, and the noise of a private look is drawn once"),
        (["--strategy", "mirrored", "--recipe", "dpgan"], "leave --strategy out"),
        (["--replicas", "2", "--recipe", "smoke"], "--replicas 2: goes with --strategy mirrored"),
    ],
)
def test_the_command_refuses_what_cannot_be(arguments, words, capsys):
    result = CliRunner().invoke(app, ["train", *arguments])
    assert isinstance(result.exception, UsageError)
    assert words in str(result.exception)


def test_a_lost_worker_is_a_line_and_other_failures_are_not_taken_for_one():
    import tensorflow as tf

    pair = Strategy(name="multi-worker", workers=2)
    lost = tf.errors.UnavailableError(None, None, "Graph execution error:\n\nCollective ops is aborted by: gone\nmore")
    with (
        pytest.raises(TrainingError, match=r"another worker stopped or cannot be reached \(gone\)"),
        workers_in_reach(pair),
    ):
        raise lost
    with pytest.raises(tf.errors.ResourceExhaustedError), workers_in_reach(pair):
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")


def test_a_replica_without_images_is_refused(tmp_path, monkeypatch):
    plan = plan_training(load_recipe("smoke", [*SAMPLE, "data.limit=65"]), DATA)
    monkeypatch.setattr("synthgen.training.replicas.Replicas.count", 2)
    with pytest.raises(UsageError, match="an epoch's last batch has 1 of 65 images; expected at least one for each of"):
        train(plan, tmp_path / "run", strategy=choose_strategy("mirrored"))
    assert not (tmp_path / "run").exists()


def test_more_replicas_than_devices_are_refused(tiny_recipe, tmp_path):
    import tensorflow as tf

    devices = len(tf.config.list_logical_devices())  # from here on they are as many as they are
    with pytest.raises(UsageError, match=f"replicas {devices + 1}: expected at most the"):
        train(
            plan_training(tiny_recipe, DATA),
            tmp_path / "run",
            strategy=choose_strategy("mirrored", replicas=devices + 1),
        )


def free_addresses(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def worker(index: int, addresses: list[str], timeout: float) -> Strategy:
    environment = cluster({"worker": addresses}, index=index) | {"SYNTHGEN_WORKERS_TIMEOUT": str(timeout)}
    return choose_strategy("multi-worker", environment=environment)


def test_workers_find_each_other_though_one_starts_later():
    """The later one's port is taken over by TensorFlow, which goes on answering there; here another wait does."""
    addresses = free_addresses(2)
    late = threading.Timer(0.5, wait_for_workers, [worker(1, addresses, 30)])
    with socket.create_server(("127.0.0.1", int(addresses[1].partition(":")[2]))):
        wait_for_workers(worker(0, addresses, 30))
    first = socket.create_server(("127.0.0.1", int(addresses[0].partition(":")[2])))
    with first:
        late.start()
        late.join(20)
    assert not late.is_alive()


def test_a_worker_gives_up_on_others_that_never_come():
    addresses = free_addresses(2)
    with pytest.raises(TrainingError, match=rf"no worker answered at {addresses[1]} for 0.5 seconds; start all"):
        wait_for_workers(worker(0, addresses, 0.5))
    with (
        socket.create_server(("127.0.0.1", int(addresses[0].partition(":")[2]))),
        pytest.raises(UsageError, match=f"cannot listen at {addresses[0]}"),
    ):
        wait_for_workers(worker(0, addresses, 0.5))


@pytest.mark.parametrize("index", [0, 1])
def test_the_command_gives_up_with_one_line(synthgen, tmp_path, index: int):
    environment = os.environ | cluster({"worker": free_addresses(2)}, index=index) | {"SYNTHGEN_WORKERS_TIMEOUT": "1"}
    command = ["train", "--recipe", "smoke", "--data", DATA, "--set", SAMPLE[0], "--strategy", "multi-worker"]
    result = synthgen(*command, env=environment)
    assert result.returncode == 1
    assert "no worker answered at" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
