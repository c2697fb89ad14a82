"""What runs, and in what surroundings: code beside a set, no home, no threads, no memory, absurd settings."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2]
# Begins as the installed ``synthgen`` does: Python's path then has the program's folder, not the working folder.
PROGRAM = "import sys\nfrom synthgen.__main__ import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
# fmt: off
# Python imports these for ``-m`` before a line of ours runs.
BY_RUNPY = ["reprlib", "contextlib", "functools", "collections", "operator", "keyword", "types", "warnings"]
LATER = [
    "typing", "typer", "click", "rich", "tqdm", "numpy", "h5py", "signal", "enum", "multiprocessing", "selectors",
    "tempfile", "pickle", "struct", "subprocess", "threadpoolctl", "scipy", "PIL", "zlib_ng", "json", "hashlib",
    "tensorflow", "keras", "google", "sitecustomize", "usercustomize",
]
# fmt: on


@pytest.fixture
def planted(tmp_path):
    """A folder of modules that leave a mark when they are run."""

    def plant(names: list[str]) -> Path:
        for name in names:
            (tmp_path / f"{name}.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r} + {name!r})\n")
        return tmp_path

    return plant


@pytest.fixture
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("bin") / "synthgen"
    path.write_text(PROGRAM)
    return path


def run(command: list[object], folder: Path, **options) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    options = {"env": environment, "timeout": 100, "text": True, "capture_output": True, **options}
    return subprocess.run(list(map(str, command)), cwd=folder, check=False, **options)


@pytest.mark.parametrize("how", ["program", "module"])
def test_a_command_runs_no_code_beside_a_set(planted, program, export, tmp_path, how: str):
    folder = planted(LATER if how == "module" else LATER + BY_RUNPY)
    export(tmp_path / "set", count=600, shards=2)
    start = [sys.executable, program] if how == "program" else [sys.executable, "-m", "synthgen"]
    result = run([*start, "verify", "set", "--workers", 2], folder)
    assert result.returncode == 0, result.stderr
    assert not list(folder.glob("ran*"))


@pytest.mark.slow
def test_training_and_drawing_run_no_code_beside_a_set(planted, program, tiny_checkpoint, tmp_path):
    folder = planted(LATER + BY_RUNPY)
    command = [sys.executable, program, "export", "--checkpoint", tiny_checkpoint.path, "--allow-unprotected"]
    result = run([*command, "--count", 600, "--shards", 2, "--workers", 2], folder)
    assert result.returncode == 0, result.stderr
    assert "TensorFlow" in run([sys.executable, program, "doctor"], folder).stdout  # starts it
    assert not list(folder.glob("ran*"))


def test_a_librarys_workers_run_no_code_beside_a_set(planted, export, tmp_path, tmp_path_factory):
    """Spawned processes import the script that started them, too: it must be found, and guard itself."""
    folder = planted(LATER + BY_RUNPY)
    export(tmp_path / "set", count=600, shards=2)
    script = tmp_path_factory.mktemp("script") / "mine.py"
    script.with_name("beside_mine.py").write_text("from pathlib import Path; SET = Path('set')")
    script.write_text(
        "from beside_mine import SET\nfrom synthgen.sets.verification import verify\n"
        "if __name__ == '__main__':\n    print(verify(SET, workers=2).sound)\n"
    )
    result = run([sys.executable, script], folder)
    assert result.stdout == "True\n", result.stderr
    assert not list(folder.glob("ran*"))


@pytest.mark.ray
def test_ray_actors_run_no_code_beside_a_set(planted, program, tiny_checkpoint):
    folder = planted(LATER + BY_RUNPY)
    command = [sys.executable, program, "export", "--checkpoint", tiny_checkpoint.path, "--allow-unprotected"]
    paths = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]  # an empty one is the working folder
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    result = run([*command, "--count", 600, "--engine", "ray", "--workers", 1], folder, env=environment)
    assert result.returncode == 0, result.stderr
    assert not list(folder.glob("ran*"))


def test_a_source_tree_is_found_by_its_workers(export, tmp_path):
    """``python -m synthgen`` in the folder of the sources, which no path names."""
    export(tmp_path / "set", count=600, shards=2)
    (tmp_path / "synthgen").symlink_to(SOURCE / "synthgen")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = run([sys.executable, "-m", "synthgen", "verify", "set", "--workers", 2], tmp_path, env=environment)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_no_hdf5_plugin_is_loaded(tmp_path):
    """A folder in HDF5_PLUGIN_PATH may be relative, and so be a stranger's."""
    plugins, mark = tmp_path / "plugins", tmp_path / "ran"
    plugins.mkdir()
    source = f'__attribute__((constructor)) static void run(void) {{ fopen("{mark}", "w"); }}'
    (tmp_path / "plugin.c").write_text(f"#include <stdio.h>\n{source}\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", plugins / "libx.so", tmp_path / "plugin.c"], check=True)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "HDF5_PLUGIN_PATH": "plugins"}
    look = "import h5py.h5z; h5py.h5z.filter_avail(32_017)"  # as for a file that says it is compressed so
    run([sys.executable, "-c", look], tmp_path, env=environment)
    assert mark.exists(), "the trap does not work"
    mark.unlink()
    command = "import sys; sys.argv[1:] = ['recipes']; from synthgen.__main__ import main\n"
    command += f"try: main()\nexcept SystemExit: {look}"
    assert run([sys.executable, "-c", command], tmp_path, env=environment).returncode == 0
    assert not mark.exists()


AS_NOBODY = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
READING = "+dac_read_search,+dac_override"  # where this Python stands may be closed to others
AS_NOBODY += [f"--inh-caps=-all,{READING}", f"--ambient-caps={READING}"]
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root, setpriv"
)


@needs_root
@pytest.mark.parametrize("arguments", [["data"], ["verify", "set"], ["info", "conditional"]], ids=str)
def test_a_user_without_a_home_or_a_name(export, tmp_path, arguments: list[str]):
    export(tmp_path / "set", count=60)
    tmp_path.chmod(0o777)
    command = ["env", "-u", "HOME", "-u", "KERAS_HOME", "PYTHONPATH=" + str(SOURCE), sys.executable, "-m", "synthgen"]
    result = run([*AS_NOBODY, *command, *arguments], tmp_path)
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") <= 1
    assert result.returncode == 0 or arguments == ["data"]


@needs_root
@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["--help"], 0),
        (["verify", "set", "--workers", 1], 0),
        (["verify", "set", "--workers", 2], 1),
        (["export", "--count", 600, "--workers", 1, "--allow-unprotected"], 1),
        (["export", "--count", 600, "--shards", 2, "--workers", 2, "--allow-unprotected"], 1),
        (["evaluate", "set"], 1),
    ],
    ids=str,
)
def test_no_process_and_no_thread_can_start(export, tmp_path, arguments, exit_code: int):
    export(tmp_path / "set", count=600, shards=2)
    tmp_path.chmod(0o777)
    command = ["bash", "-c", 'ulimit -u 1; exec "$@"', "bash", *AS_NOBODY, sys.executable, "-m", "synthgen"]
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    result = run([*command, *arguments], tmp_path, env={**environment, "PYTHONPATH": str(SOURCE)})
    assert result.returncode == exit_code, result.stderr
    assert "Traceback" not in result.stderr
    assert "interrupted" not in result.stderr
    if exit_code:
        assert any(word in result.stderr.splitlines()[-1] for word in ("ulimit -u", "use --workers 1"))


def test_little_memory_is_a_line(export, tmp_path):
    resource = pytest.importorskip("resource")
    export(tmp_path / "set", count=60)

    def little() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20))  # TensorFlow needs more

    result = run([sys.executable, "-m", "synthgen", "evaluate", "set"], tmp_path, preexec_fn=little)
    assert result.returncode == 1
    assert result.stderr.startswith("synthgen: a library cannot be loaded: ")
    assert result.stderr.count("\n") == 1


def test_memory_that_ends_is_a_line(tmp_path):
    code = (
        "import sys, synthgen.model.recipe as m\n"
        "def builtin_recipes(): raise MemoryError\n"
        "m.builtin_recipes = builtin_recipes\nsys.argv[1:] = ['recipes']\n"
        "from synthgen.__main__ import main; main()"
    )
    result = run([sys.executable, "-c", code], tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "memory is short" in result.stderr


@pytest.mark.parametrize(
    "setting", ["MININTERVAL=abc", "NCOLS=x", "BAR_FORMAT={nope}", "POSITION=99999999", "INITIAL=", "UNIT_DIVISOR=0"]
)
def test_settings_of_tqdm_are_not_taken(synthgen, setting: str):
    name, _, value = setting.partition("=")
    result = synthgen("recipes", env={**os.environ, f"TQDM_{name}": value})
    assert (result.returncode, result.stderr) == (0, "")


def test_help_survives_optimisation(synthgen):
    for arguments in (["--help"], ["verify", "--help"], ["train", "--help"]):
        result = synthgen(*arguments, env={**os.environ, "PYTHONOPTIMIZE": "2"})
        assert result.returncode == 0
        assert result.stdout == synthgen(*arguments).stdout


def test_a_checkpoint_under_a_name_that_is_not_utf8_is_a_line(synthgen, tiny_checkpoint, tmp_path):
    name = os.fsdecode(b"check\xff")
    shutil.copytree(tiny_checkpoint.path, tmp_path / name)
    for arguments in (["export", "--checkpoint", name, "--count", 10, "--allow-unprotected"], ["info", name]):
        result = synthgen(*arguments)
        assert "Traceback" not in result.stderr
        assert result.returncode in (0, 1)
        assert result.returncode == 0 or result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    ["export --count", "export --seed", "export --labels", "export --splits train=", "verify . --workers",
     "audit private --canaries", "audit private --looks", "audit private --count", "evaluate . --seeds", "train --seed",
     "doctor --count"],
)  # fmt: skip
@pytest.mark.parametrize("number", ["9" * 5_000, "9" * 30])
def test_absurd_numbers_are_a_line(synthgen, arguments: str, number: str):
    words = arguments.split()
    words = [*words[:-1], words[-1] + number] if words[-1].endswith("=") else [*words, number]
    result = synthgen(*words)
    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith(("synthgen: ", "Error: "))
