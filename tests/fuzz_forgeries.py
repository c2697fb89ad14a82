"""Forge sets, checkpoints, releases, recipes and work folders, seal them anew, and read them. Run by test_fuzz.py.

    python fuzz_forgeries.py FOLDER CHECKPOINT INPUTS SEED

The checkpoint holds integers; the golden one of 0.2.0, with float32 weights, is forged beside it.

A process of its own, under a memory limit and with an alarm for every input. Each input must end as read or with one
line of an error of ours. What is called sound, with every image drawn again, must hold the images of the original.
"""

import contextlib
import copy
import json
import os
import random
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from forged import GOLDEN

from synthgen.errors import SynthgenError
from synthgen.export.run import generate, plan_export
from synthgen.files import sha256_of_file
from synthgen.formats.table import FORMATS
from synthgen.model.checkpoint import Checkpoint, load_checkpoint, weights_sha256
from synthgen.model.recipe import builtin_recipes, load_recipe
from synthgen.pixels.latents import latents
from synthgen.sets.inspection import describe
from synthgen.sets.manifest import load_manifest, sealed
from synthgen.sets.reading import read_set
from synthgen.sets.verification import verify
from synthgen.training.matching.plan import plan_matching_anew

MOST_MEMORY, MOST_SECONDS, IMAGES = 1 << 30, 10, 20
STRANGE: list[Any] = [
    None, True, False, 0, 1, -1, 19, 21, 255, 256, 1 << 31, 1 << 63, -(1 << 63), 10**39, 0.5, -0.0, 1e308, "", "none",
    "balanced", "uniform", "0", "train", "test", "png", "npz", "x" * 5000, "a\nb", "\x1b[2J", "\u202e", "..", "../x",
    "/etc/passwd", "manifest.json", ".synthgen/job.json", "0" * 64, "f" * 64, [], {}, [[]], [0] * 10, [None], {"a": 1},
]  # fmt: skip

Attempt = Callable[[random.Random], None]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value within a JSON document."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


def forged(document: Any, chance: random.Random) -> Any:
    """The document with one to three of its values exchanged, removed, repeated or swapped."""
    document = copy.deepcopy(document)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        ways = places(document)
        *way, last = chance.choice(ways)
        holder = document
        for key in way:
            holder = holder[key]
        kind = chance.random()
        if kind < 0.6:
            value = holder[last]
            near = [value + 1, value - 1, value * 2] if type(value) is int else [str(value)[::-1], str(value) + " "]
            holder[last] = chance.choice(STRANGE if chance.random() < 0.7 else near)
        elif kind < 0.75:
            del holder[last]
        elif isinstance(holder, list):
            holder.insert(chance.randrange(len(holder) + 1), copy.deepcopy(holder[last]))
        else:
            other = chance.choice(list(holder))
            holder[last], holder[other] = holder[other], holder[last]
    return document


def altered(data: bytes, chance: random.Random) -> bytes:
    """The bytes with one to four edits."""
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data) + 1)
        piece = chance.choice([bytes([chance.randrange(256)]), b"\xff" * 8, b"\0" * 8, b"\x7f\xff\xff\xff", b"../../"])
        kind = chance.random()
        if kind < 0.6:
            data = data[:place] + piece + data[place + len(piece) :]
        elif kind < 0.8:
            data = data[:place] + piece + data[place:]
        else:
            data = data[:place]
    return data


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError, AttributeError, TypeError):  # no longer an object
        manifest = sealed(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def content(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    batches = list(read_set(folder, load_manifest(folder)))
    return np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])


class Sets:
    """Attacks on a set of each format."""

    def __init__(self, root: Path, checkpoint: Checkpoint) -> None:
        self.root, self.checkpoint = root, checkpoint
        self.originals = {name: root / f"original-{name}" for name in FORMATS}
        for name, folder in self.originals.items():
            plan = plan_export(checkpoint, count=IMAGES, file_format=name)
            generate(checkpoint, plan, folder, allow_unprotected=True)
        self.content = content(self.originals["npz"])

    def copied(self, chance: random.Random) -> Path:
        folder = self.root / "set"
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(self.originals[chance.choice(list(self.originals))], folder))

    def manifest(self, chance: random.Random) -> None:
        folder = self.copied(chance)
        seal(folder, forged(json.loads((folder / "manifest.json").read_text("utf-8")), chance))
        self.read(folder)

    def file(self, chance: random.Random) -> None:
        """Any file altered, and the manifest made to agree with it."""
        folder = self.copied(chance)
        files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
        path = chance.choice(files)
        path.write_bytes(altered(path.read_bytes(), chance))
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        records = [*manifest["sidecars"], *(file for shard in manifest["shards"] for file in shard["files"])]
        for record in records:
            listed = folder / record["name"]
            if listed.suffix == ".sha256" and path.suffix == ".png":  # the listing agrees, too
                name = path.relative_to(folder).as_posix()
                lines = [line for line in listed.read_text("utf-8").splitlines() if not line.endswith(name)]
                lines.insert(int(path.stem), f"{sha256_of_file(path)}  {name}")
                listed.write_text("\n".join(lines) + "\n", "utf-8")
            record |= {"bytes": listed.stat().st_size, "sha256": sha256_of_file(listed)}
        seal(folder, manifest)
        self.read(folder)

    def work_folder(self, chance: random.Random) -> None:
        """A job or a shard's record altered, then the export resumed."""
        folder = self.root / "resumed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.root / "begun", folder)
        path = chance.choice(sorted((folder / ".synthgen").glob("*.json")))
        if chance.random() < 0.3:
            path.write_bytes(altered(path.read_bytes(), chance))
        else:
            path.write_text(json.dumps(forged(json.loads(path.read_text("utf-8")), chance)), "utf-8")
        plan = plan_export(self.checkpoint, count=600, file_format="npz", shards=2)
        made = generate(self.checkpoint, plan, folder, resume=True, allow_unprotected=True)
        assert made.digest == self.whole, "a forged work folder gave another set"

    def begin(self) -> None:
        """A set of two shards as it is just before its manifest is written."""
        plan = plan_export(self.checkpoint, count=600, file_format="npz", shards=2)
        import synthgen.export.run as run

        kept, run.complete = run.complete, _stop  # type: ignore[assignment]
        try:
            generate(self.checkpoint, plan, self.root / "begun", allow_unprotected=True)
        except KeyboardInterrupt:
            pass
        finally:
            run.complete = kept
        self.whole = generate(self.checkpoint, plan, self.root / "whole", allow_unprotected=True).digest

    def read(self, folder: Path) -> None:
        describe(str(folder))
        report = verify(folder, regenerate=IMAGES, checkpoint=self.checkpoint)
        assert all("\n" not in problem for problem in report.problems), report.problems
        if report.sound:
            for found, original in zip(content(folder), self.content, strict=True):
                assert np.array_equal(found, original), "called sound, but its images are others"


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def file_attack(original: Path, root: Path, names: list[str], read: Callable[[Path], object]) -> Attempt:
    """Alter one of a folder's files, as JSON where it is JSON, and read the folder."""

    def attempt(chance: random.Random) -> None:
        folder = root / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name in names:
            shutil.copyfile(original / name, folder / name)
        path = folder / chance.choice(names)
        if path.suffix == ".json" and chance.random() < 0.7:
            path.write_text(json.dumps(forged(json.loads(path.read_text("utf-8")), chance)), "utf-8")
        else:
            path.write_bytes(altered(path.read_bytes(), chance))
        read(folder)

    return attempt


def drawn(folder: Path) -> None:
    load_checkpoint(str(folder)).generator()


def integers(original: Checkpoint, root: Path) -> Attempt:
    """Arrays of integers altered and hashed anew: what still loads, draws, and every backend draws the same."""
    shape, count = original.recipe.latent, 3
    noise = latents(1, 0, shape.size, shape.distribution)[:count]
    labels = np.arange(count, dtype=np.uint8)

    def attempt(chance: random.Random) -> None:
        folder = root / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(original.path, folder)
        with h5py.File(original.weights_path) as file:
            arrays = {name: file[name][()] for name in original.arrays}
        for name in chance.sample(list(arrays), chance.randint(1, 3)):
            arrays[name] = other_array(arrays[name], chance)
        with h5py.File(folder / "generator.h5", "w") as file:
            for name, array in arrays.items():
                file[name] = array
        document = json.loads((folder / "checkpoint.json").read_text("utf-8"))
        document["sha256"] = weights_sha256(folder / "generator.h5", original.identified)
        (folder / "checkpoint.json").write_text(json.dumps(document), "utf-8")
        forgery = load_checkpoint(str(folder))
        one, other = (forgery.generator(name)(noise, labels) for name in ("numpy", "onnxruntime"))
        assert np.array_equal(one, other), "two backends draw a forged checkpoint differently"

    return attempt


def other_array(array: np.ndarray, chance: random.Random) -> np.ndarray:
    """The array with some of its values exchanged, or of another type or shape."""
    kind, limits = chance.random(), np.iinfo(array.dtype)
    if kind < 0.1:
        return array.astype(chance.choice(["f4", "i8", "u1", "i2"]))
    if kind < 0.2:
        return chance.choice([array[:0], array[None], array[..., :-1], array.ravel()])
    found, size = array.copy(), chance.choice([1, 1, 5, array.size])
    near = [0, 1, -1, 2, 30, 31, 64, -64, 65, 100, -100, -255, -256, 1 << 10, 1 << 23, 1 << 24, limits.min, limits.max]
    near = [value for value in near if limits.min <= value <= limits.max]
    for place in chance.choices(range(array.size), k=size):
        found.flat[place] = chance.choice(near)
    return found


def recipes(root: Path) -> Attempt:
    def attempt(chance: random.Random) -> None:
        path = root / "recipe.toml"
        path.write_bytes(altered(chance.choice(list(builtin_recipes().values())).read_bytes(), chance))
        load_recipe(str(path))

    return attempt


def alarm(number: int, frame: object) -> None:
    raise TimeoutError(f"longer than {MOST_SECONDS} s")


def refusal(attempt: Attempt, chance: random.Random) -> str | None:
    """The one line with which the input was refused; None where it was read."""
    line = None
    signal.alarm(MOST_SECONDS)
    try:
        attempt(chance)
    except SynthgenError as error:
        line = str(error)
    finally:
        signal.alarm(0)
    assert line is None or (line.strip() and "\n" not in line), f"not one line: {line!r}"
    return line


def main(folder: Path, location: str, inputs: int, seed: int) -> None:
    checkpoint = load_checkpoint(location)
    sets = Sets(folder, checkpoint)
    sets.begin()
    private = load_checkpoint("private").path
    files, old_files = ["checkpoint.json", "generator.h5"], ["checkpoint.json", "generator.weights.h5"]
    run = [*files, "ledger.json", "release.h5"]
    attacks: dict[str, tuple[int, Attempt]] = {
        "manifest": (6, sets.manifest),
        "file of a set": (6, sets.file),
        "work folder": (2, sets.work_folder),
        "checkpoint": (3, file_attack(checkpoint.path, folder, files, drawn)),
        "integers": (3, integers(checkpoint, folder)),
        "float checkpoint": (1, file_attack(GOLDEN / "checkpoint", folder, old_files, drawn)),
        "release": (1, file_attack(private, folder, run, lambda path: plan_matching_anew(str(path), []))),
        "recipe": (2, recipes(folder)),
    }
    if not all((private / name).is_file() for name in run):
        del attacks["release"]
    plan_matching_anew("private", [])  # imports TensorFlow, which takes more than the limit
    checkpoint.generator("onnxruntime")
    resource.setrlimit(resource.RLIMIT_AS, (resource_now() + MOST_MEMORY,) * 2)
    signal.signal(signal.SIGALRM, alarm)
    ended: Counter[str] = Counter()
    names, weights = list(attacks), [weight for weight, _ in attacks.values()]
    for number in range(inputs):
        chance = random.Random(f"{seed} {number}")
        name = chance.choices(names, weights)[0]
        try:
            refused = refusal(attacks[name][1], chance)
        except BaseException:
            print(f"input {number} of seed {seed}, {name}", file=sys.stderr)
            raise
        ended[f"{name}: {'read' if refused is None else 'refused'}"] += 1
    print(dict(sorted(ended.items())))


def resource_now() -> int:
    """The address space in use, bytes; libraries loaded so far do not count."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
