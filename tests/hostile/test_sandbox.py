"""The same attacks by another user, with a home that cannot be written and no network.."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534
PYTHON = Path(sys.executable).resolve()
REACHABLE = all(folder.stat().st_mode & 0o001 for folder in (*PYTHON.parents, *ROOT.parents))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(not shutil.which("unshare") or not shutil.which("setpriv"), reason="needs util-linux")
@pytest.mark.skipif(not REACHABLE, reason="another user may not use this interpreter or these tests")
def test_the_attacks_as_another_user_without_home_and_network(tmp_path):
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir(mode=0o555)
    work.mkdir()
    os.chown(work, NOBODY, NOBODY)
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):  # pytest makes them for root alone
        folder.chmod(folder.stat().st_mode | 0o055)
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--basetemp={work / 'pytest'}"]
    tests = [str(path) for path in sorted((ROOT / "tests/hostile").glob("test_*.py")) if path != Path(__file__)]
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(work), "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    result = subprocess.run(
        ["unshare", "--net", *user, *command, *tests],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
