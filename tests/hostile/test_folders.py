"""Folders that a stranger made: nothing outside is touched, nothing hangs, every refusal is one line."""

import contextlib
import json
import os
import signal
import socket
from pathlib import Path

import pytest
from kill_exports import cheap_pixels
from small_exports import small_job

from synthgen.errors import ExportError, SynthgenError, TrainingError, UsageError
from synthgen.export import claim
from synthgen.export.outputs import LocalOutput
from synthgen.export.plan import plan_export
from synthgen.export.run import generate, generate_share, merge
from synthgen.export.splits import generate_splits, plan_splits
from synthgen.files import folder_lock
from synthgen.sets.manifest import WORK_FOLDER, load_manifest
from synthgen.sets.verification import verify
from synthgen.training.folder import run_folder

WORK = WORK_FOLDER


@pytest.fixture(autouse=True)
def _nothing_hangs():
    if not hasattr(signal, "setitimer"):
        yield
        return

    def end(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 60)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def victim(tmp_path):
    """A folder elsewhere, with names as an export's own leftovers have them; it must stay as it is."""
    folder = tmp_path / "victim"
    (folder / "staging-mine").mkdir(parents=True)
    for name in ("staging-mine/a", ".b.partial", "c"):
        (folder / name).write_text("precious")
    before = sorted(folder.rglob("*"))
    yield folder
    assert sorted(folder.rglob("*")) == before
    assert all(path.read_text() == "precious" for path in before if path.is_file())


@pytest.fixture
def small_splits(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr("synthgen.model.sampling.loaded_generator", cheap_pixels)

    def export(out, file_format: str = "png", **options):
        exports = plan_splits(tiny_checkpoint, "train=20,test=10", file_format=file_format)
        return generate_splits(tiny_checkpoint, exports, out, allow_unprotected=True, **options)

    return export


@pytest.fixture
def shares(small, tiny_checkpoint, tmp_path):
    """A folder with both shards of ``small_job``, which wait for merge."""
    generate_share(
        tiny_checkpoint, small_job(tiny_checkpoint).export, tmp_path / "set", share=0, of=1, allow_unprotected=True
    )
    return tmp_path / "set"


def refused(act, *words: str, error: type[SynthgenError] = ExportError) -> None:
    with pytest.raises(error) as refusal:
        act()
    message = str(refusal.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 1000
    assert message.isprintable()
    for word in words:
        assert word in message


# Links


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "name",
    [WORK, "train", "train/3_Dress", "checksums", "shard-lists", "manifest.json"]
    + [f"{WORK}/{name}" for name in ("lock", "job.json", "shard-00000.json")],
)
def test_a_planted_link_is_named_and_not_followed(small, victim, tmp_path, monkeypatch, name: str, resume: bool):
    monkeypatch.setattr("synthgen.sets.manifest.SHARDS_PER_LIST", 1)  # so that there are lists of shards
    out = tmp_path / "set"
    (out / WORK).parent.mkdir()
    if not name.startswith(WORK) or "/" in name:
        (out / WORK).mkdir()
    names = sorted(path.name for path in _class_folders(tmp_path, small))
    name = name.replace("3_Dress", names[3])
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).symlink_to(victim / "c" if "." in Path(name).name[1:] or name.endswith("lock") else victim)
    refused(lambda: small(out, "png", resume=resume), f"{out / name}: a link")
    assert (out / name).is_symlink()


def _class_folders(tmp_path: Path, small) -> list[Path]:
    small(tmp_path / "example", "png")
    return list((tmp_path / "example" / "train").iterdir())


def test_a_dangling_link_is_refused_too(small, tmp_path):
    out = tmp_path / "set"
    out.mkdir()
    (out / WORK).symlink_to(tmp_path / "nowhere")
    refused(lambda: small(out), "is not empty")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", [f"{WORK}/splits", f"{WORK}/splits/train", f"{WORK}/splits/test", "test", WORK])
def test_a_planted_link_under_splits(small_splits, victim, tmp_path, name: str):
    out = tmp_path / "set"
    out.mkdir()
    if name != WORK:
        (out / WORK).mkdir()
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).symlink_to(victim)
    refused(lambda: small_splits(out), f"{out / name}: a link")


def test_copies_of_splits_are_not_written_through_a_link(small_splits, victim, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError

    out = tmp_path / "set"
    (out / WORK).mkdir(parents=True)
    (out / WORK / "copy").symlink_to(victim / "c")
    with monkeypatch.context() as patch:
        patch.setattr("os.link", refuse)
        small_splits(out)
    assert verify(out).sound


def test_a_finished_set_whose_work_folder_is_a_link(small, victim, tmp_path):
    small(tmp_path / "set")
    (tmp_path / "set" / WORK).symlink_to(victim)
    refused(lambda: small(tmp_path / "set", resume=True), f"{WORK}: a link")
    refused(lambda: merge(tmp_path / "set"), f"{WORK}: a link")


@pytest.mark.parametrize("target", ["there", "made on the way"])
def test_the_folder_itself_may_be_named_by_a_link(small, small_splits, tmp_path, target: str):
    for number, export in enumerate((small, small_splits)):
        if target == "there":
            (tmp_path / f"{target}-{number}").mkdir()
        out = tmp_path / f"link-{number}"
        out.symlink_to(tmp_path / f"{target}-{number}")
        export(out, resume=False)
        assert verify(out).sound
        assert not (tmp_path / f"{target}-{number}" / WORK).exists()


def test_a_circle_of_links_is_one_line(small, small_splits, tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for act in (small, small_splits, merge):
        refused(lambda act=act: act(tmp_path / "a"), str(tmp_path / "a"))


def test_a_shard_that_is_a_link_is_missing(small, shares, tmp_path):
    name = "train-00001-of-00002.npz"
    (shares / name).rename(tmp_path / "elsewhere")
    (shares / name).symlink_to(tmp_path / "elsewhere")
    refused(lambda: merge(shares), "1 of 2 shards are missing or of another export: 1;")
    before = (tmp_path / "elsewhere").read_bytes()
    small(shares, resume=True)
    assert verify(shares).sound
    assert (tmp_path / "elsewhere").read_bytes() == before


@pytest.mark.parametrize("name", ["samples", ".lock", "training-state.npz", "ledger.json", "ledger.json.lock"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_link_in_the_folder_of_a_run(victim, tmp_path, name: str, resume: bool):
    out = tmp_path / "run"
    out.mkdir()
    if resume:
        for own in {"training-state.npz", "ledger.json"} - {name}:
            (out / own).write_bytes(b"")
    (out / name).symlink_to(victim if name == "samples" else victim / "c")
    with pytest.raises(UsageError, match=f"{name}: a link"), run_folder(out, resume, private=True):
        pass


# Races


def test_one_that_finishes_between_our_look_and_our_claim_is_not_taken_for_ours(
    small, tiny_checkpoint, tmp_path, monkeypatch
):
    """A finishes with another seed after B has looked for a manifest, and before B has the lock."""
    other = plan_export(tiny_checkpoint, count=300, file_format="npz", shards=2, seed=7)
    lock = claim._work_folder_lock

    @contextlib.contextmanager
    def late(out: Path, shared: bool):
        monkeypatch.setattr(claim, "_work_folder_lock", lock)
        generate(tiny_checkpoint, other, out, allow_unprotected=True)
        with lock(out, shared) as held:
            yield held

    for resume in (False, True):
        out = tmp_path / f"set-{resume}"
        monkeypatch.setattr(claim, "_work_folder_lock", late)
        refused(lambda out=out, resume=resume: small(out, resume=resume), "holds a finished set; choose a new folder")
        assert load_manifest(out).seed == 7
        assert not (out / WORK).exists()
        assert verify(out).sound
    out = tmp_path / "shared"
    monkeypatch.setattr(claim, "_work_folder_lock", late)
    export = small_job(tiny_checkpoint).export
    refused(lambda: generate_share(tiny_checkpoint, export, out, share=0, of=1, allow_unprotected=True), "finished set")


def test_one_that_finishes_the_same_set_meanwhile_has_done_our_work(small, tiny_checkpoint, tmp_path, monkeypatch):
    out, lock = tmp_path / "set", claim._work_folder_lock

    @contextlib.contextmanager
    def late(out: Path, shared: bool):
        monkeypatch.setattr(claim, "_work_folder_lock", lock)
        small(out)
        with lock(out, shared) as held:
            yield held

    monkeypatch.setattr(claim, "_work_folder_lock", late)
    assert small(out, resume=True) == load_manifest(out)
    assert not (out / WORK).exists()


def test_splits_that_finish_meanwhile_are_not_taken_for_a_set(small, small_splits, tmp_path, monkeypatch):
    out, lock = tmp_path / "set", claim._work_folder_lock

    @contextlib.contextmanager
    def late(out: Path, shared: bool):
        monkeypatch.setattr(claim, "_work_folder_lock", lock)
        small(out)
        with lock(out, shared) as held:
            yield held

    monkeypatch.setattr(claim, "_work_folder_lock", late)
    refused(lambda: small_splits(out, resume=True), "holds a finished set")
    assert not (out / WORK).exists()


@pytest.mark.parametrize("kind", ["set", "merge", "splits"])
def test_the_work_folder_goes_while_the_lock_is_held(small, small_splits, shares, tmp_path, monkeypatch, kind: str):
    free: list[bool] = []
    remove = LocalOutput.release

    def release(self: LocalOutput) -> None:
        with folder_lock(self.path / WORK / "lock", shared=False) as held:
            free.append(held)
        remove(self)

    monkeypatch.setattr(LocalOutput, "release", release)
    act = {"set": small, "splits": small_splits, "merge": lambda _: merge(shares)}[kind]
    act(tmp_path / "new")
    assert free
    assert not any(free)


def test_the_work_folder_may_go_while_we_come(small, tmp_path, monkeypatch):
    """The one that finished removes the work folder between our making it and our opening its lock."""
    gone: list[Path] = []
    own_folder = claim.own_folder

    def vanishing(root: Path, name: str) -> Path:
        path = own_folder(root, name)
        if name == WORK and not gone:
            gone.append(path)
            path.rmdir()
        return path

    monkeypatch.setattr(claim, "own_folder", vanishing)
    small(tmp_path / "set")
    assert gone
    assert verify(tmp_path / "set").sound


def test_leftovers_at_which_another_is_at_work_stay(small, tmp_path):
    small(tmp_path)
    (tmp_path / WORK).mkdir()
    with folder_lock(tmp_path / WORK / "lock", shared=True):
        merge(tmp_path)
        assert (tmp_path / WORK).is_dir()
    merge(tmp_path)
    assert not (tmp_path / WORK).exists()


def test_a_training_that_ended_meanwhile_is_seen(tmp_path, monkeypatch):
    from synthgen.training import folder

    lock = folder.exclusive_lock

    @contextlib.contextmanager
    def late(path: Path, **options):
        monkeypatch.setattr(folder, "exclusive_lock", lock)
        with run_folder(tmp_path / "run", False, private=False):
            (tmp_path / "run/checkpoint.json").write_text("{}")
        with lock(path, **options) as held:
            yield held

    monkeypatch.setattr(folder, "exclusive_lock", late)
    with pytest.raises(UsageError, match="is not empty"), run_folder(tmp_path / "run", False, private=False):
        pass


# A damaged work folder


def changed(document, path: str, value):
    *parents, last = path.split("/")
    place = document
    for parent in parents:
        place = place[parent]
    place[last] = value
    return document


DEEP = json.loads("[" * 500 + "]" * 500)
STRANGE = [
    float("inf"),
    float("nan"),
    -1,
    True,
    None,
    "",
    "7",
    10**400,
    1.5,
    [1, 2, 3],
    {"a": 1},
    DEEP,
    "\ud800",
    "\x1b",
]
JOB_KEYS = ["count", "seed", "start", "shards", "labels", "split", "format", "checkpoint", "made_with", "origin"]
JOB_KEYS += [
    f"origin/{key}" for key in ("recipe", "privacy", "name", "location", "privacy/trained_on", "recipe/latent")
]


@pytest.mark.parametrize("key", JOB_KEYS)
def test_a_damaged_job_is_one_line(small, tiny_checkpoint, shares, key: str):
    path = shares / WORK / "job.json"
    good = path.read_text()
    for value in STRANGE:
        path.write_text(json.dumps(changed(json.loads(good), key, value)))
        if key == "origin/location" and isinstance(value, str):
            continue  # any name; merge opens no checkpoint
        if key in ("origin/name", "origin/privacy/trained_on") and value in ("", "7"):
            continue
        refused(lambda: merge(shares), str(shares))
        if not key.startswith("origin"):  # this is not compared, for each machine may have the checkpoint elsewhere
            refused(lambda: small(shares, resume=True), str(shares))
    path.write_text(good)
    merge(shares)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"count":' + b"9" * 5000 + b"}", b" " * 2_000_000, b"\xff", b""])
def test_a_job_that_is_none(small, shares, content: bytes):
    (shares / WORK / "job.json").write_bytes(content)
    refused(lambda: merge(shares), "job.json")
    refused(lambda: small(shares, resume=True), "job.json")


def test_a_job_of_very_many_shards_takes_no_time(tiny_checkpoint, shares):
    path = shares / WORK / "job.json"
    job = json.loads(path.read_text())
    path.write_text(json.dumps({**job, "shards": 10**9, "count": 10**12}))
    refused(lambda: merge(shares), "shards 1000000000")
    path.write_text(json.dumps({**job, "shards": 3, "count": 10**15}))
    refused(lambda: merge(shares), "3 of 3 shards are missing")
    path.write_text(json.dumps({**job, "shards": 3, "count": 1000, "format": "idx"}))
    refused(lambda: merge(shares), "one file by nature")
    path.write_text(json.dumps({**job, "labels": "none"}))
    refused(lambda: merge(shares), "do not fit the recipe")


RECORD_KEYS = ["index", "start", "count", "digest", "files", "class_counts", "block_digests", "job", "made_with"]
RECORD_KEYS += [f"files/0/{key}" for key in ("name", "bytes")]


@pytest.mark.parametrize("key", RECORD_KEYS)
def test_a_damaged_record_is_a_missing_shard(small, shares, key: str):
    path = shares / WORK / "shard-00001.json"
    good = json.loads(path.read_text())
    for value in [*STRANGE, [30] * 9 + [30.0], [True] * 10, [-1] * 10, ["0" * 64], "manifest.json", "../../up"]:
        document = json.loads(json.dumps(good))
        if key.startswith("files/0/"):
            document["files"][0][key.rpartition("/")[2]] = value
        else:
            document[key] = value
        path.write_text(json.dumps(document))
        refused(lambda: merge(shares), "1 of 2 shards are missing or of another export: 1;")
    small(shares, resume=True)
    assert verify(shares).sound


def test_class_counts_that_add_up_and_are_not_the_labels_are_not_believed(shares):
    path = shares / WORK / "shard-00001.json"
    record = json.loads(path.read_text())
    counts = record["class_counts"]
    record["class_counts"] = [counts[0] + 1, counts[1] - 1, *counts[2:]]
    path.write_text(json.dumps(record))
    refused(lambda: merge(shares), "1 of 2 shards are missing or of another export: 1;")


def test_shards_made_with_too_much_together_are_not_sealed(small, shares):
    """Each record could be true, but no manifest could hold them."""
    for path in sorted((shares / WORK).glob("shard-*.json")):
        record = json.loads(path.read_text())
        record["made_with"] = {f"{path.stem} {number}": "x" for number in range(40)}
        path.write_text(json.dumps(record))
    for act in (lambda: merge(shares), lambda: small(shares, resume=True)):
        refused(act, "a shard's record was altered: made_with is too long")
    assert not (shares / "manifest.json").exists()


def test_two_shards_are_not_one_file(small, shares):
    first, second = (shares / WORK / f"shard-0000{number}.json" for number in (0, 1))
    record = json.loads(second.read_text())
    record["files"] = json.loads(first.read_text())["files"]
    second.write_text(json.dumps(record))
    for act in (lambda: merge(shares), lambda: small(shares, resume=True)):
        refused(act, "two shards name the file train-00000-of-00002.npz; remove")
    assert not (shares / "manifest.json").exists()


def test_a_record_without_end_is_not_read(shares):
    with (shares / WORK / "shard-00000.json").open("wb") as stream:
        stream.truncate(1 << 40)
    refused(lambda: merge(shares), "shard-00000.json: larger than")


@pytest.mark.parametrize("where", ["set", WORK, f"{WORK}/staging-a"])
def test_very_deep_folders(small, tmp_path, where: str):
    out = tmp_path / "set"
    if where == "set":
        small(out)
    place = out if where == "set" else out / where
    place.mkdir(parents=True, exist_ok=True)
    _nest(place, 1200)
    try:
        if where == "set":
            report = verify(out)
            assert not report.sound
            assert any(problem.startswith("d: not part of the set") for problem in report.problems)
            assert len(report.problems) < 20
        else:
            small(out)
            assert load_manifest(out).count == 300
    finally:
        _unnest(place if place.exists() else tmp_path)


def _nest(place: Path, depth: int) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)


def _unnest(place: Path) -> None:
    """Remove what ``_nest`` made: pytest's own cleaning up would fail."""
    import subprocess

    subprocess.run(["rm", "-rf", str(place / "d")], check=True)


# What would wait for ever


def _plant(path: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):
            server.bind(path.name)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        try:
            os.mknod(path, 0o020666, os.makedev(1, 5))  # /dev/zero
        except PermissionError:
            pytest.skip("may not make devices here")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
@pytest.mark.parametrize("name", [f"{WORK}/lock", f"{WORK}/job.json", f"{WORK}/shard-00000.json", "manifest.json"])
def test_a_pipe_is_not_waited_for(small, small_splits, tiny_checkpoint, shares, kind: str, name: str):
    _plant(shares / name, kind)
    refused(lambda: merge(shares), f"{shares / name}: a link, a pipe or the like")
    refused(lambda: small(shares, resume=True), f"{shares / name}: a link, a pipe or the like")
    if "shard" not in name:
        refused(lambda: small_splits(shares, resume=True), str(shares))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder"])
def test_a_pipe_as_the_lock_of_a_run(tmp_path, kind: str):
    _plant(tmp_path / "run/.lock", kind)
    named = pytest.raises(TrainingError, match=r"\.lock: a link, a pipe or the like")
    with named, run_folder(tmp_path / "run", False, private=False):
        pass


def test_folders_that_bear_a_leftovers_name_stay(small, tmp_path):
    (tmp_path / "set" / WORK).mkdir(parents=True)
    (tmp_path / "set/.a.partial").mkdir()
    small(tmp_path / "set")
    assert (tmp_path / "set/.a.partial").is_dir()


# Folders that cannot be


@pytest.mark.parametrize(
    ("out", "word", "error"),
    [
        ("", "expected a folder", UsageError),
        ("file://", "expected a folder", UsageError),
        ("a\0b", "expected a folder", UsageError),
        ("nosuch://bucket/set", "nosuch", UsageError),
        ("file", "is a file or below one", ExportError),
        ("file/below", "is a file or below one", ExportError),
        ("x" * 300, "File name too long", ExportError),
        ("/proc/nothing/here", "cannot be written", ExportError),
    ],
)
def test_an_out_that_cannot_be_is_one_line(small, small_splits, tmp_path, monkeypatch, out: str, word: str, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    pytest.importorskip("fsspec")
    for act in (small, merge, small_splits):
        if act is merge and out.startswith("/proc"):
            continue
        refused(lambda act=act: act(out), word, error=error)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
