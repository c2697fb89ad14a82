"""Two devices that share every batch are to give what one gives; see ``share_training``."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support import DATA, SAMPLE

from synthgen.model.checkpoint import load_checkpoint
from synthgen.model.recipe import load_recipe
from synthgen.model.sampling import Sampler
from synthgen.training.adversarial import plan_training
from synthgen.training.folder import STATE_NAME
from synthgen.training.run import train

PROGRAM = Path(__file__).parents[1] / "share_training.py"
SHORT = [*SAMPLE, "data.limit=45", "training.batch_size=16", "training.epochs=2"]


def share_training(*arguments: str) -> list[dict]:
    result = subprocess.run([sys.executable, PROGRAM, *arguments], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def expect_same_curve(case: dict) -> None:
    assert len(case["shared"]) == len(case["alone"]) == 6
    for shared, alone in zip(case["shared"], case["alone"], strict=True):
        # Adam divides by the size of a gradient, so that what rounding does to a small one grows from step to step.
        assert shared == pytest.approx(alone, rel=1e-4, abs=1e-4), case["case"]
    assert case["difference"] < 1e-4, case["case"]


def test_two_devices_give_the_losses_of_one():
    for case in share_training("relativistic", "cross-entropy"):
        expect_same_curve(case)


@pytest.mark.slow
def test_two_devices_give_the_losses_of_one_in_every_game():
    for case in share_training("hinge", "everything"):
        expect_same_curve(case)


@pytest.mark.slow
def test_a_shared_run_is_resumed_under_its_strategy_alone():
    (outcome,) = share_training("resume")
    assert outcome["equal"]
    assert "was begun with --strategy mirrored, 2 replicas; go on with the same" in outcome["refused"]


@pytest.mark.slow
def test_two_workers_give_the_losses_of_one_process(tmp_path):
    """Two processes on this machine, as on two machines."""
    alone = train(plan_training(load_recipe("smoke", SHORT), DATA, seed=3), tmp_path / "alone")
    assert finish(start_workers(tmp_path / "pair", SHORT)) == [0, 0]
    assert (tmp_path / "worker-1.txt").read_text() == ""  # the chief alone reports
    pair = load_checkpoint(tmp_path / "pair")
    assert pair.training["strategy"] == {"name": "multi-worker", "workers": 2, "replicas": 2}
    np.testing.assert_allclose(losses(pair.path), losses(alone.path), rtol=1e-4)
    images, expected = (Sampler.of(checkpoint)(0)[0].astype(int) for checkpoint in (pair, alone))
    assert np.abs(images - expected).mean() < 1  # a weight may be rounded the other way


@pytest.mark.slow
def test_two_workers_stop_together_and_go_on_together(tmp_path):
    out, long = tmp_path / "long", [*SHORT, "training.epochs=4000", "training.sample_every_epochs=1"]
    workers = start_workers(out, long)
    wait_for(out / "samples" / "epoch-0002.png", workers)
    workers[1].send_signal(signal.SIGTERM)
    assert finish(workers) == [130, 130]
    assert all("all saved; go on with --resume" in last_line(tmp_path, index) for index in (0, 1))

    epochs = len(losses(out))
    workers = start_workers(out, long, "--resume")
    wait_for(out / "samples" / f"epoch-{epochs + 2:04d}.png", workers)
    workers[1].kill()
    assert finish(workers) == [1, -signal.SIGKILL]
    assert "another worker stopped or cannot be reached" in last_line(tmp_path, 0)
    assert (out / STATE_NAME).is_file()


def start_workers(out: Path, overrides: list[str], *options: str) -> list[subprocess.Popen]:
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in (first, second)]
    command = [sys.executable, "-m", "synthgen", "train", "--recipe", "smoke", "--data", str(DATA), "--seed", "3"]
    command += ["--out", str(out), "--strategy", "multi-worker", *options]
    command += [part for override in overrides for part in ("--set", override)]
    workers = []
    for index in (0, 1):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {"TF_CONFIG": json.dumps(config)}
        output = (out.parent / f"worker-{index}.txt").open("w")
        workers.append(subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT))
    return workers


def finish(workers: list[subprocess.Popen]) -> list[int]:
    try:
        return [worker.wait(timeout=120) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()


def wait_for(path: Path, workers: list[subprocess.Popen]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline
        assert all(worker.poll() is None for worker in workers)
        time.sleep(0.05)


def last_line(folder: Path, index: int) -> str:
    return (folder / f"worker-{index}.txt").read_text().splitlines()[-1]


def losses(run: Path) -> list[list[float]]:
    with (run / "metrics.csv").open() as stream:
        return [[float(row["generator_loss"]), float(row["discriminator_loss"])] for row in csv.DictReader(stream)]
