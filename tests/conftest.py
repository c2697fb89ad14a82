"""Fixtures, named for the state they give. Everything runs on a tiny real sample of Fashion-MNIST."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as processors: more threads only wait for each other
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kill_exports import cheap_pixels
from small_exports import request, small_job
from support import SAMPLE, write_as_set

from synthgen.export.run import generate, plan_export
from synthgen.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from synthgen.model.recipe import Recipe, load_recipe
from synthgen.privacy.accounting import Budget, Mechanism
from synthgen.privacy.ledger import Ledger
from synthgen.privacy.statement import PrivacyStatement, differential_privacy, no_guarantee
from synthgen.sets.manifest import Manifest, manifest_documents
from synthgen.training.matching.fitting import fitted

os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="synthgen-state-")  # of runs that no test looks at

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def spend_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the spend logs of a test's runs lie: none knows of another test's."""
    state = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    return state / "synthgen" / "spend"


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    return load_recipe("smoke", SAMPLE)


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """An untrained conditional generator."""
    return _untrained(tiny_recipe, tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def float_checkpoint() -> Checkpoint:
    """The golden checkpoint of 0.2.0: float32 weights, whose pixels depend on the processor."""
    return load_checkpoint(Path(__file__).parent / "golden" / "0.2.0" / "checkpoint")


@pytest.fixture(scope="session")
def unlabelled_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """An untrained unconditional generator."""
    sizes = ["generator.stem_filters=4", "generator.filters=[4, 4]", "latent.size=8"]
    return _untrained(load_recipe("notebook", sizes), tmp_path_factory.mktemp("checkpoint") / "unlabelled")


@pytest.fixture(scope="session")
def private_checkpoint(tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """An untrained conditional generator with a claim of differential privacy, about epsilon 1."""
    teacher = Mechanism(
        name="teacher",
        releases="noisy gradients",
        noise_multiplier=20.0,
        l2_sensitivity=1.0,
        sampling_probability=0.125,
        steps=100,
    )
    means = Mechanism(name="embedding", releases="ten noisy sums", noise_multiplier=6.0, l2_sensitivity=1.0)
    privacy = differential_privacy(
        Ledger((teacher, means)), 1e-5, "60,000 images of the user's own images, training split"
    )
    recipe = fitted(load_recipe("private"), 60_000)
    look = replace(recipe.look, teacher_steps=100, teacher_batch_size=7_500, embedding_noise=0.3, students=0)
    sizes = {"data": tiny_recipe.data, "latent": tiny_recipe.latent, "generator": tiny_recipe.generator}
    recipe = replace(recipe, privacy=Budget(epsilon=2.0), look=look, **sizes)
    return _untrained(recipe, tmp_path_factory.mktemp("checkpoint") / "private", privacy)


def _untrained(recipe: Recipe, path: Path, privacy: PrivacyStatement | None = None) -> Checkpoint:
    import keras

    from synthgen.model.networks import build_generator

    keras.utils.set_random_seed(1)
    return save_checkpoint(path, build_generator(recipe), recipe, privacy or no_guarantee("nothing: untrained"), {})


@pytest.fixture
def export(tiny_checkpoint: Checkpoint) -> Callable[..., Manifest]:
    """Export a set from the tiny checkpoint: ``export(out, count=…, file_format=…)``."""

    def export_set(
        out: Path, *, checkpoint: Checkpoint = tiny_checkpoint, resume: bool = False, backend: str = "auto", **request
    ) -> Manifest:
        request = {"count": 600, "file_format": "npz", **request}
        plan = plan_export(checkpoint, **request)
        return generate(checkpoint, plan, out, resume=resume, backend=backend, allow_unprotected=True)

    return export_set


@pytest.fixture(scope="session")
def whole(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The set of ``small_exports.request`` as one process writes it."""
    out = tmp_path_factory.mktemp("whole") / "set"
    return generate(tiny_checkpoint, request(tiny_checkpoint), out, allow_unprotected=True)


@pytest.fixture
def small(tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Manifest]:
    """A cheap export of 300 images in two shards: ``small(out, **options)``."""
    monkeypatch.setattr("synthgen.model.sampling.loaded_generator", cheap_pixels)

    def export(out: Path | str, file_format: str = "npz", **options) -> Manifest:
        plan = small_job(tiny_checkpoint, file_format).export
        return generate(tiny_checkpoint, plan, out, allow_unprotected=True, **options)

    return export


@pytest.fixture(scope="session")
def write_set(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write any images as an npz set with a manifest that is right: ``write_set(images, labels or None)``."""

    def write(images: np.ndarray, labels: np.ndarray | None, **changes: object) -> Path:
        folder = tmp_path_factory.mktemp("written") / "set"
        manifest = write_as_set(tiny_checkpoint, folder, images, labels)
        if changes:
            _, documents = manifest_documents(replace(manifest, **changes))
            for name, data in documents.items():
                (folder / name).write_bytes(data)
        return folder

    return write


@pytest.fixture
def synthgen(tmp_path: Path) -> Run:
    """Run the command line in a process of its own, in an empty folder."""

    def run(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "synthgen", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=300, **options)

    return run


# Two processes share the suite file by file: the long files first, so that none is left to one of them at the end.
_LONG_FILES = (
    "test_readme",
    "training/test_adversarial",
    "evaluation/test_run",
    "matching/test_run",
    "training/test_plan",
    "cli/test_processes",
    "hostile/test_forged_files",
    "export/test_run",
    "cli/test_app",
    "training/test_replicas",
    "evaluation/test_classifiers",
    "hostile/test_forged_sets",
    "evaluation/test_inception",
    "training/test_dpgan",
    "hostile/test_folders",
    "cli/test_console",
    "export/test_shares",
    "export/test_kills",
    "evaluation/test_report",
    "evaluation/test_utility",
    "cli/test_end_to_end",
    "hostile/test_fuzz",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        name = item.path.with_suffix("").as_posix()
        return next((rank for rank, long in enumerate(_LONG_FILES) if name.endswith(long)), len(_LONG_FILES))

    items.sort(key=rank)
