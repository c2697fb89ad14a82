"""The doctor finds what is wrong, downloads nothing and leaves nothing behind."""

import json
import shutil

import pytest
from support import DATA
from typer.testing import CliRunner

from synthgen.cli.app import app
from synthgen.doctor import NOTE, OK, PROBLEM, diagnose
from synthgen.errors import UsageError


def by_name(diagnosis):
    return {check.name: check for check in diagnosis.checks}


def test_a_healthy_machine(tiny_checkpoint, tmp_path):
    diagnosis = diagnose(checkpoint=str(tiny_checkpoint.path), out=tmp_path / "new" / "set", count=1000)
    assert diagnosis.healthy, str(diagnosis)
    checks = by_name(diagnosis)
    assert checks["round trip"].finding.startswith("256 images as tfrecord, digest ")
    assert "needed as tfrecord" in checks["disk for 1,000 images"].finding
    assert set(checks) >= {"synthgen", "python", "tensorflow", "processor", "cores", "memory"}
    assert not list(tmp_path.iterdir())
    assert all("\n" not in check.finding for check in diagnosis.checks)


def test_it_names_what_is_wrong(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("asked the network"))
    broken = shutil.copytree(tiny_checkpoint.path, tmp_path / "broken")
    (broken / "generator.h5").write_bytes(b"garbage")
    diagnosis = diagnose(checkpoint=str(broken), data=tmp_path, out=tmp_path, count=10**15)
    checks = by_name(diagnosis)
    assert not diagnosis.healthy
    assert "no readable weights" in checks["round trip"].finding
    assert "make room" in checks[f"disk for {10**15:,} images"].finding
    assert checks["real images"].state == NOTE  # exporting needs none
    states = {check.state for check in diagnosis.checks if check.name == "checkpoint"}
    assert states == {OK, PROBLEM}


def test_a_library_that_cannot_even_be_imported_is_a_finding(monkeypatch):
    def broken(name: str, file_format: str) -> str:
        raise ImportError("libtensorflow: cannot open\nshared object")

    monkeypatch.setattr("synthgen.doctor._round_trip_finding", broken)
    check = by_name(diagnose(data=DATA))["round trip"]
    assert (check.state, check.finding) == (PROBLEM, "ImportError: libtensorflow: cannot open shared object")


def test_what_no_folder_could_hold_is_refused():
    with pytest.raises(UsageError, match="count 0"):
        diagnose(count=0)
    with pytest.raises(UsageError, match="format 'jpeg'"):
        diagnose(file_format="jpeg")


def test_the_command_prints_json_and_says_by_its_exit_code_whether_all_is_well(tmp_path, monkeypatch):
    monkeypatch.setattr("synthgen.doctor._round_trip_finding", lambda name, file_format: "skipped")
    result = CliRunner().invoke(app, ["doctor", "--json", "--data", str(DATA), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["healthy"] is True
    result = CliRunner().invoke(app, ["doctor", "--checkpoint", "nowhere"])
    assert result.exit_code == 1
    assert "problem  checkpoint" in result.stdout
