import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pixels import second

from synthgen.export.plan import plan_export
from synthgen.export.run import generate
from synthgen.index import LabelRule
from synthgen.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from synthgen.model.networks import build_generator
from synthgen.model.recipe import load_recipe
from synthgen.model.sampling import Sampler
from synthgen.privacy.statement import no_guarantee

SHIPPED = ["private", "private-eps1", "conditional"]
BLOCK = 256
COUNT = 64
WHERE = [(0, 0), (7, 3), (2**64 - 1, 2**40)]  # seeds and blocks


def assert_same(checkpoint: Checkpoint, seed: int, block: int, rule: str | None = None, greys: int = 10):
    """Compare the last images of a block and the first of the next one, and see that there is something to compare."""
    start = (block + 1) * BLOCK - COUNT // 2
    sampler = Sampler.of(checkpoint, seed, rule) if rule else Sampler.of(checkpoint, seed)
    (images, labels), (more_images, more_labels) = sampler(block), sampler(block + 1)
    expected = np.concatenate([images[-COUNT // 2 :], more_images[: COUNT // 2]])
    drawn, given = second.images(checkpoint.path, seed, rule or "balanced", start, COUNT)
    np.testing.assert_array_equal(drawn, expected, strict=True)
    if labels is None:
        assert given is more_labels is None
    else:
        np.testing.assert_array_equal(given, np.concatenate([labels[-COUNT // 2 :], more_labels[: COUNT // 2]]))
    assert len(np.unique(drawn)) > greys


@pytest.mark.parametrize(("seed", "block"), WHERE)
@pytest.mark.parametrize("name", SHIPPED)
def test_a_second_implementation_draws_the_same_images(name: str, seed: int, block: int):
    assert_same(load_checkpoint(name), seed, block, "uniform", greys=200)


@pytest.mark.parametrize(("seed", "block"), WHERE)
def test_of_untrained_checkpoints_too(tiny_checkpoint, unlabelled_checkpoint, seed: int, block: int):
    assert_same(tiny_checkpoint, seed, block, "balanced")
    assert_same(unlabelled_checkpoint, seed, block)


@pytest.mark.parametrize(
    ("kernel", "distribution", "batch_norm"),
    [
        (2, "uniform", "false"),
        (3, "gaussian", "false"),
        (3, "uniform", "true"),
        (4, "uniform", "false"),
        (5, "gaussian", "true"),
        (6, "uniform", "true"),
    ],
)
def test_of_kernels_of_many_sizes(kernel: int, distribution: str, batch_norm: str, tmp_path):
    sizes = ["generator.stem_filters=5", "generator.filters=[4, 3]", "latent.size=7"]
    sizes += [f"generator.kernel_size={kernel}", f"generator.batch_norm={batch_norm}"]
    recipe = load_recipe("notebook", [*sizes, f"latent.distribution={distribution}"])
    generator = build_generator(recipe)
    generator.set_weights([6 * weights for weights in generator.get_weights()])  # or all is grey
    checkpoint = save_checkpoint(tmp_path / "checkpoint", generator, recipe, no_guarantee("nothing: untrained"), {})
    assert_same(checkpoint, 5, 1, greys=100)


@pytest.mark.parametrize(
    "text",
    ["balanced", "uniform", "0,3,7", "9", "8,2,5,1", "shares=9,0,0,1,0,0,0,0,0,90", "shares=1,1,1,1,1,1,1,1,1,1"],
)
@pytest.mark.parametrize(("seed", "block"), WHERE)
def test_label_rules(text: str, seed: int, block: int):
    rule = [int(label) for label in text.split(",")] if text[0].isdigit() else text
    labels = LabelRule.parse(text).labels(seed, block)
    np.testing.assert_array_equal(second.labels(seed, block, rule), labels, strict=True)


@pytest.mark.parametrize(("start", "count"), [(0, 600), (300, 50), (255, 258), (512, 256)])
def test_the_digest_of_an_export(export, tiny_checkpoint, tmp_path, start: int, count: int):
    manifest = export(tmp_path / "set", start=start, count=count, seed=7, labels="0,3,7")
    assert second.digest(*second.images(tiny_checkpoint.path, 7, [0, 3, 7], start, count), start) == manifest.digest


def test_the_digest_of_an_export_without_labels(export, unlabelled_checkpoint, tmp_path):
    manifest = export(tmp_path / "set", checkpoint=unlabelled_checkpoint, count=300)
    drawn = second.images(unlabelled_checkpoint.path, manifest.seed, "balanced", 0, 300)
    assert second.digest(*drawn, 0) == manifest.digest


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_the_digest_of_2000_images(name: str, tmp_path):
    checkpoint = load_checkpoint(name)
    plan = plan_export(checkpoint, count=2000, file_format="npz", seed=11, labels="uniform")
    manifest = generate(checkpoint, plan, tmp_path / "set", allow_unprotected=True)
    assert second.digest(*second.images(checkpoint.path, 11, "uniform", 0, 2000), 0) == manifest.digest


def test_the_checks_of_the_page():
    words = second.words(7, 3, 0)
    assert [next(words) for _ in range(3)] == [0x7B6CC7B1862CC5F2, 0xB960F2EA4B3F8D9F, 0x0CDD72E015DEB1A6]
    assert second.latents(7, 3, 150, "gaussian")[0, :6].tolist() == [24, 2, 25, -1, 4, -17]
    assert second.latents(7, 3, 150, "uniform")[0, :6].tolist() == [98, 67, 99, 61, 70, 37]
    assert second.labels(7, 3, "uniform")[:10].tolist() == [8, 5, 1, 8, 0, 1, 6, 6, 3, 9]
    assert second.labels(7, 3, "shares=9,0,0,1,0,0,0,0,0,90")[:10].tolist() == [9, 9, 9, 9, 3, 9, 9, 9, 9, 9]


@pytest.mark.parametrize("layer", ["dense", "stage_1", "stage_2", "image"])
def test_a_sum_that_may_pass_the_bound_is_noticed(layer: str):
    generator = second.Generator.load(load_checkpoint("private").path)
    integers = getattr(generator, layer)
    too_large = replace(integers, bias=integers.bias - 2**24)
    with pytest.raises(AssertionError):
        replace(generator, **{layer: too_large}).check()


def test_it_shares_no_code_with_the_program():
    nodes = list(ast.walk(ast.parse(Path(second.__file__).read_text())))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    standard = {"collections.abc", "dataclasses", "functools", "hashlib", "itertools", "json", "math", "pathlib"}
    assert modules == standard | {"statistics", "h5py", "numpy", "numpy.typing"}
    assert not {"__import__", "exec", "eval"} & {node.id for node in nodes if isinstance(node, ast.Name)}
