"""Whatever random edit is made to a set, ``verify`` names the file (hypothesis looks for one that it does not)."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from synthgen.errors import VerificationError
from synthgen.export.run import generate, plan_export
from synthgen.formats.table import FORMATS
from synthgen.sets.verification import verify

EXAMPLES = [12, pytest.param(300, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def originals(tiny_checkpoint, tmp_path_factory) -> Path:
    """Thirty images around a block's edge in every format, two shards where the format has shards."""
    root = tmp_path_factory.mktemp("originals")
    for name in FORMATS:
        shards = 1 if FORMATS[name].one_file else 2
        plan = plan_export(tiny_checkpoint, start=240, count=30, file_format=name, shards=shards)
        generate(tiny_checkpoint, plan, root / name, allow_unprotected=True)
    return root


def found(folder: Path) -> str:
    try:
        return "\n".join(verify(folder).problems)
    except VerificationError as error:
        return str(error)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def edit(folder: Path, draw) -> tuple[str, ...]:
    """Make one random edit; the names, one of which the finding must bear."""
    files = files_of(folder)
    victim = draw(st.sampled_from(files), label="victim")
    data, name = victim.read_bytes(), victim.relative_to(folder).as_posix()
    kind = draw(st.sampled_from(["flip", "drop", "add", "swap", "truncate", "extend", "folder", "link"]), label="edit")
    if kind == "flip":
        place = draw(st.integers(0, len(data) * 8 - 1), label="bit")
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        if name == "manifest.json":
            assume(not _same_json(data, bytes(changed)))
        victim.write_bytes(changed)
    elif kind == "drop":
        victim.unlink()
    elif kind == "add":
        stranger = victim.with_name(draw(st.sampled_from(["0", "x.png", "train-00000-of-00003.npz", "ünï çode"])))
        stranger.write_bytes(b"")
        return (stranger.relative_to(folder).as_posix(),)
    elif kind == "swap":
        other = draw(st.sampled_from(files), label="other")
        swapped = other.read_bytes()
        assume(swapped != data)
        other.write_bytes(data)
        victim.write_bytes(swapped)
        return name, other.relative_to(folder).as_posix()
    elif kind == "truncate":
        victim.write_bytes(data[: draw(st.integers(0, len(data) - 1), label="length")])
        assume(name != "manifest.json" or not _same_json(data, victim.read_bytes()))
    elif kind == "extend":
        victim.write_bytes(data + draw(st.binary(min_size=1, max_size=8)))
        assume(name != "manifest.json" or not _same_json(data, victim.read_bytes()))
    elif kind == "folder":
        (victim.parent / "0_aaa").mkdir()
        return ((victim.parent / "0_aaa").relative_to(folder).as_posix(),)
    else:
        aside = folder.parent / "aside"
        victim.rename(aside)
        victim.symlink_to(aside)
    return (name,)


def _same_json(before: bytes, after: bytes) -> bool:
    """Blank space is no content."""
    try:
        return json.dumps(json.loads(before)) == json.dumps(json.loads(after))
    except ValueError:
        return False


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("file_format", FORMATS)
def test_every_edit_is_found_and_named(originals, tmp_path, file_format: str, examples: int):
    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(st.data())
    def look(data):
        folder = tmp_path / "set"
        shutil.rmtree(folder, ignore_errors=True)
        (tmp_path / "aside").unlink(missing_ok=True)
        shutil.copytree(originals / file_format, folder)
        names = edit(folder, data.draw)
        findings = found(folder)
        assert any(name in findings for name in names), f"{names}: {findings or 'nothing found'}"

    look()


JSON_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 1 << 65), st.floats(), st.text(max_size=8), st.just([]), st.just({})
)


@pytest.mark.parametrize("examples", [40, pytest.param(3000, marks=pytest.mark.slow)])
def test_every_edit_of_the_manifest_is_found(originals, tmp_path, examples: int):
    folder = shutil.copytree(originals / "npz", tmp_path / "set")
    text = (folder / "manifest.json").read_text("utf-8")

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True)
    @given(st.data())
    def look(data):
        document = json.loads(text)
        node, key = document, data.draw(st.sampled_from(sorted(document)))
        while isinstance(node[key], (dict, list)) and node[key] and data.draw(st.booleans(), label="deeper"):
            node = node[key]
            key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if data.draw(st.integers(0, 3)) == 0:
            del node[key]
        else:
            value = data.draw(JSON_LEAVES, label="value")
            assume(json.dumps(value) != json.dumps(node[key]))
            node[key] = value
        (folder / "manifest.json").write_text(json.dumps(document), "utf-8")
        assert found(folder)

    look()
