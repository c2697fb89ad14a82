"""The data-set card and the Croissant document beside a set; tests/interop reads them with the real libraries."""

import dataclasses
import json

import pytest

from synthgen.formats.table import FORMATS
from synthgen.sets.cards import card
from synthgen.sets.croissant import croissant
from synthgen.sets.manifest import load_manifest
from synthgen.sets.verification import verify


@pytest.fixture(scope="module")
def manifest(write_set):
    import numpy as np

    return load_manifest(write_set(np.zeros((20, 28, 28), np.uint8), np.arange(20, dtype=np.uint8) % 10))


def test_the_manifest_vouches_for_card_and_croissant(export, tmp_path):
    manifest = export(tmp_path / "set", count=20)
    assert {"README.md", "croissant.json"} <= {file.name for file in manifest.sidecars}
    (tmp_path / "set" / "README.md").write_text("Real photographs.")
    assert "README.md" in verify(tmp_path / "set").problems[0]


def test_the_card_says_what_how_many_and_from_where(manifest):
    text = card([manifest])
    assert "# 20 synthetic Fashion-MNIST images" in text
    assert manifest.privacy.sentence in text
    assert manifest.checkpoint.sha256 in text
    assert manifest.digest in text
    assert "| 9 | Ankle boot | 2 |" in text
    assert "license: unknown" in text  # the tiny checkpoint's data are not the official Fashion-MNIST


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("labelled", [True, False])
def test_every_format_has_a_loader_that_compiles(manifest, file_format: str, labelled: bool):
    labels = {} if labelled else {"labels": "none", "class_counts": ()}
    text = card([dataclasses.replace(manifest, format=file_format, **labels)])
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert len(code.splitlines()) <= 3
    assert labelled or "labels" not in code.replace("labels=None", "")


def test_a_private_checkpoints_epsilon_and_delta_are_in_the_provenance(manifest, private_checkpoint):
    privacy = private_checkpoint.privacy
    document = croissant([dataclasses.replace(manifest, privacy=privacy)])
    found = {p["name"]: p["value"] for p in document["prov:wasGeneratedBy"][0]["additionalProperty"]}
    assert (found["epsilon"], found["delta"], found["seed"]) == (privacy.proof.epsilon, privacy.proof.delta, "0")
    curve = privacy.proof.curve
    assert found["mu of Gaussian differential privacy"] == curve.gdp_mu
    assert found["largest true positive rate at 1 % false positives"] == curve.true_positive_rate
    assert curve.sentence in document["description"]


def test_a_private_checkpoints_card_says_what_an_attacker_gains(manifest, private_checkpoint):
    privacy = private_checkpoint.privacy
    text = card([dataclasses.replace(manifest, privacy=privacy)])
    assert f"{privacy.sentence} {privacy.proof.curve.sentence} Trained on" in text
    assert f"| by delta | {privacy.proof.facts()[1][1]} |" in text
    assert "proven besides" not in card([manifest])


def test_hostile_names_stay_inside_their_quotes(manifest):
    named = dataclasses.replace(manifest.checkpoint, name='`x` "y" </script>')
    manifest = dataclasses.replace(manifest, checkpoint=named)
    assert "checkpoint `'x' " in card([manifest])
    assert json.loads(json.dumps(croissant([manifest])))["prov:wasDerivedFrom"]["name"].endswith(
        "</script> (not built in)"
    )
