import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from support import DATA

from synthgen.cli.app import app
from synthgen.errors import EvaluationError
from synthgen.evaluation.classifiers import SMALL_CNN, TRAINERS
from synthgen.evaluation.report import render_report, summary, write_report
from synthgen.evaluation.run import evaluate
from synthgen.real_images import load_real_images

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
VOID = {"meta", "img"}


@pytest.fixture(scope="module")
def evaluated(write_set):
    """Evaluations of a labelled and of an unlabelled set: altered training images and a few copies."""
    train = load_real_images("train", DATA, official=False)
    images = np.roll(train.images[:400], 1, axis=2)
    images[:3] = train.images[:3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRAINERS, SMALL_CNN, TRAINERS["logistic regression"])
        return {
            kind: evaluate(write_set(images, labels), DATA, quick=kind == "unlabelled", official=False)
            for kind, labels in (("labelled", train.labels[:400]), ("unlabelled", None))
        }


class Strict(HTMLParser):
    """Collects what a page holds; every element must be closed where HTML wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.text = ""

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(page: str) -> Strict:
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert not parser.open
    return parser


@pytest.mark.parametrize("kind", ["labelled", "unlabelled"])
def test_the_page_is_well_formed_complete_in_itself_and_accessible(evaluated, kind: str):
    page = read(render_report(evaluated[kind]))
    tags = {tag for tag, _ in page.seen}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "a"}
    for tag, attributes in page.seen:
        assert not any(name.startswith("on") for name in attributes)
        if tag == "img":
            assert attributes["src"].startswith("data:image/png;base64,")
            assert attributes["alt"]
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
    assert ("html", {"lang": "en"}) in page.seen
    style = page.text
    assert "url(" not in style
    assert "@import" not in style


def test_the_page_says_what_must_be_said(evaluated):
    evaluation = evaluated["labelled"]
    text = " ".join(read(render_report(evaluation)).text.split())
    assert "not the Inception FID of papers" in text
    assert evaluation.manifest.privacy.sentence in text
    assert f"Drawn from checkpoint {evaluation.manifest.checkpoint.name} (not built in)" in text
    assert "the manifest; checkpoint not at hand" in text
    assert evaluation.manifest.digest in text
    assert "no privacy guarantee" in text
    assert f"{100 * evaluation.utility[0].synthetic.mean:.1f} / {100 * evaluation.utility[0].real.mean:.1f}" in text
    for note in evaluation.notes:
        assert note in text
    assert "Ankle boot" in text


def test_the_unlabelled_page_leaves_utility_out(evaluated):
    text = read(render_report(evaluated["unlabelled"])).text
    assert "has no labels" in text
    assert "train on synthetic, test on real" not in text


def test_a_hostile_manifest_stays_text(evaluated):
    evaluation = evaluated["labelled"]
    manifest = evaluation.manifest
    hostile = replace(
        manifest,
        checkpoint=replace(manifest.checkpoint, name=HOSTILE, sha256=HOSTILE),
        privacy=replace(manifest.privacy, trained_on=HOSTILE),
        made_with={HOSTILE: HOSTILE},
        labels=HOSTILE,
        format=HOSTILE,
        split=HOSTILE,
    )
    page = read(render_report(replace(evaluation, manifest=hostile, notes=(HOSTILE,))))
    assert {tag for tag, _ in page.seen} == {tag for tag, _ in read(render_report(evaluation)).seen}
    assert page.text.count("alert(1)") >= 8


def test_pictures_hold_the_very_pixels(evaluated):
    import base64
    import io

    page = read(render_report(evaluated["labelled"]))
    pictures = [attributes for tag, attributes in page.seen if tag == "img"]
    first = next(picture for picture in pictures if picture["alt"].startswith("Pair 1: synthetic, training, 0.0"))
    with Image.open(io.BytesIO(base64.b64decode(first["src"].partition(",")[2]))) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (28, 58, 2)
    pairs = evaluated["labelled"].pictures.pairs
    assert (pixels[:, :28, 0] == pairs.synthetic[0]).all()
    assert (pixels[:, 30:, 0] == pairs.training[0]).all()


def test_report_and_json_say_that_they_are_as_private_as_the_real_images(evaluated):
    evaluation = evaluated["labelled"]
    page = read(render_report(evaluation)).text
    assert "As private as the real images: it shows training images" in page
    assert page.index("As private as") < page.index("Samples")
    document = evaluation.to_dict()
    assert next(iter(document)) == "notice"
    assert document["notice"].startswith("As private as the real images: it holds the exact SHA-256 of the training")
    assert document["real"]["training_sha256"]


def test_what_is_to_be_shared_holds_no_real_image_and_no_hash_of_them(evaluated, tmp_path):
    evaluation = evaluated["labelled"]
    shared = evaluation.to_share()
    page, document = render_report(shared), shared.to_dict()
    text = read(page).text
    assert "Without real images, and without hashes of them" in text
    assert "computed from the real images without noise" in text
    assert "As private as" not in text
    assert "synthetic, training" not in page
    assert len(shared.pictures.pairs.training) == len(shared.pictures.pairs.synthetic) == 0
    pictures = [attributes["alt"] for tag, attributes in read(page).seen if tag == "img"]
    assert not [words for words in pictures if "training" in words]
    assert document["notice"].startswith("Without real images")
    assert set(evaluation.real) - set(document["real"]) == {"training_sha256", "test_sha256"}
    shared.write(tmp_path / "shared.json")
    for key in ("training_sha256", "test_sha256"):
        assert evaluation.real[key] not in page + (tmp_path / "shared.json").read_text("utf-8")
    assert evaluation.real["training_sha256"] in json.dumps(evaluation.to_dict())
    assert summary(shared) == summary(evaluation)


def test_the_summary_is_a_small_table(evaluated):
    lines = summary(evaluated["labelled"])
    assert len(lines) == 14
    assert max(map(len, lines)) < 150
    assert any(line.startswith("test accuracy after training, small CNN") for line in lines)
    assert not any("test accuracy" in line for line in summary(evaluated["unlabelled"]))


def test_without_jinja2_there_is_a_summary_and_no_report(evaluated, monkeypatch, tmp_path):
    from typer.testing import CliRunner

    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert summary(evaluated["labelled"])
    with pytest.raises(EvaluationError, match=r"pip install 'synthgen\[evaluate\]'"):
        write_report(evaluated["labelled"], tmp_path / "report.html")
    # The command refuses before it measures anything: here before it finds that the folder is no set.
    request = ["evaluate", str(tmp_path), "--report", str(tmp_path / "report.html")]
    refusal = CliRunner().invoke(app, request).exception
    assert isinstance(refusal, EvaluationError)
    assert "\n" not in str(refusal)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
@pytest.mark.parametrize("kind", ["labelled", "unlabelled"])
def test_a_browser_renders_it_without_complaint(evaluated, tmp_path, kind: str):
    write_report(evaluated[kind], tmp_path / "report.html")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    result = subprocess.run(
        [
            shutil.which("chromium"),
            *flags,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr",
            "--window-size=1200,3000",
            f"--screenshot={tmp_path / 'shot.png'}",
            (tmp_path / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert not re.search("CONSOLE", result.stderr)
    with Image.open(tmp_path / "shot.png") as shot:
        assert shot.size == (1200, 3000)
        assert len(shot.convert("L").getcolors()) > 100
