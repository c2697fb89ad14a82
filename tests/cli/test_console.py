"""What a stranger wrote is shown by a terminal, and not obeyed."""

import json
import os

import pytest

from synthgen.cli.console import printable
from synthgen.sets.manifest import sealed

HOSTILE = {
    "escape": "\x1b[2K\x1b[1A",
    "return": "x\rset: sound: 60,000 images",
    "newline": "x\nset: sound: 60,000 images",
    "bidi": "a\u202egnp.1",
    "c1": "a\x9b2J",
    "separator": "a\u2028b\x85c",
    "bytes": os.fsdecode(b"a\xff"),
}


def is_tame(text: str) -> bool:
    return text.isprintable() and text.isascii()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_line_is_one_printable_line(name: str):
    shown = printable(HOSTILE[name])
    assert is_tame(shown)
    assert "\\" in shown


def test_what_is_printable_stays_and_length_is_bounded():
    text = "Fréchet distance, ε = 10 – 日本"
    assert printable(text) == text
    assert len(printable("x" * 10**6)) < 5_000


@pytest.mark.parametrize("name", HOSTILE)
def test_stray_files_are_named_in_a_line_each(synthgen, export, tmp_path, name: str):
    export(tmp_path / "set", count=60)
    (tmp_path / "set" / HOSTILE[name]).write_text("stray")
    result = synthgen("verify", "set", "--files-only")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert is_tame(result.stderr[:-1])
    assert not any(line.startswith("set: sound") for line in result.stderr.splitlines())


@pytest.mark.parametrize("name", ["escape", "newline"])
def test_unknown_keys_of_a_manifest_are_named_in_a_line(synthgen, export, tmp_path, name: str):
    export(tmp_path / "set", count=60)
    path = tmp_path / "set" / "manifest.json"
    path.write_text(json.dumps(sealed({**json.loads(path.read_text()), HOSTILE[name]: 1})))
    for command in ("verify", "info"):
        result = synthgen(command, "set")
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1
        assert is_tame(result.stderr[:-1])


@pytest.mark.parametrize("name", HOSTILE)
def test_arguments_are_quoted_in_a_line(synthgen, tmp_path, name: str):
    """A shell's ``*`` passes on the names of files."""
    (tmp_path / f"--{HOSTILE[name]}").touch()
    for arguments in (["verify", HOSTILE[name]], ["info", f"--{HOSTILE[name]}"], ["export", "--count", HOSTILE[name]]):
        result = synthgen(*arguments)
        assert result.returncode in (1, 2)
        assert result.stdout == ""
        assert result.stderr.splitlines()[-1].startswith(("synthgen: ", "Error: "))
        assert all(line.isprintable() for line in result.stderr.splitlines())


def test_a_table_stays_a_table(synthgen):
    lines = synthgen("info", "conditional").stdout.splitlines()
    assert len(lines) > 5
    assert lines[0].startswith("checkpoint ")
