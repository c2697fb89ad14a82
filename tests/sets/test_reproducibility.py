"""What a set says about reproducing its pixels: derived from its checkpoint's arithmetic, never believed."""

from pathlib import Path

import pytest
from support import forge

from synthgen.errors import ExportError, VerificationError
from synthgen.export.plan import Job, plan_export
from synthgen.model.checkpoint import builtin_checkpoints, load_checkpoint
from synthgen.model.claims import BUILT_IN, FLOAT32, INTEGERS
from synthgen.sets.inspection import describe
from synthgen.sets.manifest import REPRODUCIBILITY, load_manifest
from synthgen.sets.verification import verify

GOLDEN = Path(__file__).parents[1] / "golden"
EXACT = (
    "Image i is a function of the checkpoint's integers, the seed, the label rule and i alone (docs/pixels.md): "
    "every machine and every version draws the same pixels."
)


@pytest.fixture
def folder(export, tmp_path) -> Path:
    export(tmp_path / "set", count=20)
    return tmp_path / "set"


def test_a_set_of_integers_makes_no_condition(folder):
    manifest = load_manifest(folder)
    assert manifest.checkpoint.arithmetic == INTEGERS
    assert manifest.reproducibility == EXACT
    for name in ("manifest.json", "README.md", "croissant.json"):
        assert (folder / name).read_text("utf-8").count(EXACT) == 1


def test_a_set_of_float_weights_names_what_it_depends_on(export, tmp_path):
    source = load_checkpoint(GOLDEN / "0.2.0" / "checkpoint")
    manifest = export(tmp_path / "set", checkpoint=source, count=20)
    assert manifest.checkpoint.arithmetic == FLOAT32
    assert manifest.reproducibility == REPRODUCIBILITY[FLOAT32]
    assert {"blas", "processor", "vector_instructions"} <= set(manifest.made_with)
    assert EXACT not in (tmp_path / "set" / "README.md").read_text("utf-8")
    assert verify(tmp_path / "set", checkpoint=source).sound


@pytest.mark.parametrize("release", ["0.1.0", "0.2.0"])
def test_sets_of_earlier_releases_say_nothing_and_are_float(release: str):
    manifest = load_manifest(GOLDEN / release / "npz")
    assert manifest.checkpoint.arithmetic == FLOAT32
    assert verify(GOLDEN / release / "npz", checkpoint=load_checkpoint(GOLDEN / release / "checkpoint")).sound


@pytest.mark.parametrize("said", ["Every pixel is proven.", REPRODUCIBILITY[FLOAT32], None, 3])
def test_another_sentence_is_refused(folder, said):
    forge(folder, lambda document: document.update(reproducibility=said), cards=False)
    with pytest.raises(VerificationError, match="reproducibility is not that of its checkpoint's arithmetic"):
        load_manifest(folder)


def test_a_sentence_without_an_arithmetic_is_refused(folder):
    forge(folder, lambda document: document["checkpoint"].pop("arithmetic"), cards=False)
    with pytest.raises(VerificationError, match="reproducibility is not"):
        load_manifest(folder)


def test_an_unknown_arithmetic_is_refused(folder):
    forge(folder, lambda document: document["checkpoint"].update(arithmetic="float16"), cards=False)
    with pytest.raises(VerificationError, match="arithmetic 'float16'"):
        load_manifest(folder)


def claim_float(document) -> None:
    document["checkpoint"]["arithmetic"] = FLOAT32
    document["reproducibility"] = REPRODUCIBILITY[FLOAT32]


def test_the_checkpoint_at_hand_knows_its_arithmetic(folder, tiny_checkpoint):
    forge(folder, claim_float)
    report = verify(folder, checkpoint=tiny_checkpoint)
    assert report.problems == ("manifest.json: the arithmetic is not that of its checkpoint",)


def test_built_in_checkpoints_are_known(export, tmp_path):
    export(tmp_path / "set", checkpoint=load_checkpoint("private"), count=20)
    forge(tmp_path / "set", claim_float, cards=False)
    with pytest.raises(VerificationError, match="its arithmetic is not that of the built-in checkpoint"):
        load_manifest(tmp_path / "set")
    assert {name for name, known in BUILT_IN.items() if known.arithmetic == INTEGERS} == {
        load_checkpoint(name).sha256 for name in builtin_checkpoints()
    }


def test_a_job_that_hides_float_weights_is_refused():
    source = load_checkpoint(GOLDEN / "0.2.0" / "checkpoint")
    document = Job.of(source, plan_export(source, count=20, file_format="npz")).to_dict()
    assert Job.from_dict(document).checkpoint.arithmetic == FLOAT32
    del document["made_with"]
    with pytest.raises(ExportError, match="holds float32; the job was altered"):
        Job.from_dict(document).sampler()


def test_info_says_which_arithmetic_and_what_drew(folder, tiny_checkpoint):
    assert describe(str(tiny_checkpoint.path))["pixels"].startswith("exact integers")
    assert describe(str(GOLDEN / "0.2.0" / "checkpoint"))["pixels"].startswith("float32")
    described = describe(str(folder))
    assert described["pixels"].startswith("exact integers")
    assert described["drawn with"].startswith('"numpy ')  # so few
    assert describe(str(GOLDEN / "0.1.0" / "npz"))["drawn with"] == '"synthgen 0.1.0", says the manifest'
