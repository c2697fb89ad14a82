"""The scripts for clusters in examples/ do what they say, each task of them run here by hand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from synthgen.export.run import merge
from synthgen.sets.verification import verify

EXAMPLES = Path(__file__).parents[2] / "examples"
COUNT = 1_000


def run(command: list[str], **variables: object) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, **{name: str(value) for name, value in variables.items()}}
    subprocess.run(command, check=True, capture_output=True, timeout=120, env=environment)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    """The digest of the same images from one process."""
    out = tmp_path_factory.mktemp("whole") / "set"
    run([sys.executable, "-m", "synthgen", "export", "--count", str(COUNT), "--out", str(out)])
    return verify(out).manifest.digest


def test_slurm(tmp_path, whole: str):
    out = tmp_path / "set"
    for task in (1, 0):
        script = str(EXAMPLES / "slurm.sh")
        run(["bash", script], OUT=out, COUNT=COUNT, OF=2, SLURM_ARRAY_TASK_ID=task, SLURM_CPUS_PER_TASK=1)
    assert merge(out).digest == whole


def test_slurm_without_slurm_writes_the_set_as_one_share(tmp_path, whole: str):
    run(["bash", str(EXAMPLES / "slurm.sh")], OUT=tmp_path / "set", COUNT=COUNT)
    assert merge(tmp_path / "set").digest == whole


def test_kubernetes(tmp_path, whole: str):
    job = (EXAMPLES / "kubernetes-job.yaml").read_text()
    (command,) = re.findall(r"- >-\n((?: {14}.*\n)+)", job)
    command = " ".join(command.split()).replace("s3://my-bucket/hundred-million", str(tmp_path / "set"))
    command = command.replace("--count 100000000", f"--count {COUNT}").replace("--of 50", "--of 2")
    for index in (0, 1):
        run(["/bin/sh", "-c", command.replace("--workers 8", "--workers 1")], JOB_COMPLETION_INDEX=index)
    assert merge(tmp_path / "set").digest == whole
