"""How fast is the exporter? Whole processes, as a user starts them, against the notebook's way and another version.

    python benchmarks/export.py                    about three minutes on two cores
    python benchmarks/export.py --against FOLDER   also another version of synthgen, a checkout, in the same run
    python benchmarks/export.py --long             also 200,000 and 1,000,000 images: memory and cost an image
    python benchmarks/export.py --count 6000       quick; the bars are meant for 60,000

The notebook's way is its generator (random weights: they cost the same) through ``model.predict``, then a plain loop of
``tf.train.Example``, Pillow or h5py writes. Two versions are run in turn, three times each; the medians count.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

FORMATS = ("tfrecord", "hdf5", "npz", "png", "idx")
TIMES_FASTER = {"tfrecord": 20, "hdf5": 12, "npz": 12, "png": 12}
TIMES_OTHER, ROUNDS = 1.5, 3  # tfrecord, against the other version
START_LIMIT_S, MEMORY_LIMIT_GB, GROWTH_LIMIT = 0.4, 0.3, 1.1
FAST_COMMANDS = (("--help",), ("info", "conditional"))

NOTEBOOK = """
import io, json, sys, time, warnings
began = time.monotonic()
from pathlib import Path
import h5py, keras, numpy as np, tensorflow as tf
from PIL import Image
from synthgen.model.networks import build_generator
from synthgen.model.recipe import load_recipe
count, scratch = int(sys.argv[1]), Path(sys.argv[2])
recipe = load_recipe("notebook")
generator = build_generator(recipe)
seconds = {"start": time.monotonic() - began}
began = time.monotonic()
noise = np.random.default_rng(0).standard_normal((count, recipe.latent.size), np.float32)
images = (generator.predict(noise, batch_size=256, verbose=0)[..., 0] * 255).round().astype(np.uint8)
labels = np.zeros(count, np.uint8)
seconds["draw"] = time.monotonic() - began

def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()

def tfrecord():
    train = tf.train
    with tf.io.TFRecordWriter(str(scratch / "notebook.tfrecord")) as stream:
        for image, label in zip(images, labels):
            feature = {"image": train.Feature(bytes_list=train.BytesList(value=[png(image)])),
                       "label": train.Feature(int64_list=train.Int64List(value=[int(label)]))}
            stream.write(train.Example(features=train.Features(feature=feature)).SerializeToString())

def hdf5():
    with h5py.File(scratch / "notebook.h5", "w") as file:
        file.create_dataset("images", data=images, compression="gzip")
        file.create_dataset("labels", data=labels)

def pngs():
    for i, image in enumerate(images):
        Image.fromarray(image).save(scratch / f"{i}.png")

def npz():
    np.savez_compressed(scratch / "notebook.npz", images=images, labels=labels)

for name, write in (("tfrecord", tfrecord), ("hdf5", hdf5), ("npz", npz), ("png", pngs)):
    began = time.monotonic()
    write()
    seconds[name] = time.monotonic() - began
print(json.dumps(seconds))
"""

DRAW = """
import json, os, time
os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import synthgen
from synthgen.model.sampling import Sampler
from synthgen.index import LabelRule, float_latents

checkpoint, block = synthgen.load_checkpoint(), 256

def best(draw):
    draw(0)
    seconds = []
    for i in range(20):
        began = time.perf_counter()
        draw(i)
        seconds.append(time.perf_counter() - began)
    return min(seconds) / block * 1e6

rule = LabelRule.parse("balanced")
found = {name: best(Sampler(checkpoint, 0, rule, name)) for name in ("onnxruntime", "numpy")}
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
from synthgen.model.networks import pixel_function
function = pixel_function(checkpoint.keras_model(), checkpoint.recipe, block)
size = checkpoint.recipe.latent.size
found["keras"] = best(lambda i: function(float_latents(0, i, size, "gaussian"), rule.labels(0, i)))
print(json.dumps(found))
"""


def main() -> None:
    """Print Markdown tables: each measurement, and beside it the bar that it is meant to pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60_000)
    parser.add_argument("--workers", type=int, help="passed on; by default the exporter's own choice")
    parser.add_argument("--long", action="store_true", help="also 200,000 and 1,000,000 images")
    parser.add_argument("--against", type=Path, help="a checkout of another version, with what it needs installed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as name:
        scratch = Path(name).resolve()
        start_up(scratch)
        drawing()
        compare(scratch, options.count, options.workers)
        if options.against:
            against(options.against.resolve(), scratch, options.count, options.workers)
        if options.long:
            grow(scratch, options.workers)


def start_up(scratch: Path) -> None:
    """Commands that should answer at once."""
    synthgen_seconds("export", "--count", 100, "--out", scratch / "hundred")
    print("| command | s | bar |\n|---|---|---|")
    for command in (*FAST_COMMANDS, ("verify", scratch / "hundred")):
        best = min(synthgen_seconds(*command)[0] for _ in range(3))
        print(f"| `synthgen {' '.join(Path(str(word)).name for word in command)}` | {best:.2f} | {START_LIMIT_S} |")


def drawing() -> None:
    """What an image costs one processor to draw, and nothing else."""
    found = json.loads(python(DRAW))
    print("\n| one image on one thread | µs | against numpy |\n|---|---|---|")
    names = {"onnxruntime": "`onnxruntime`", "numpy": "`numpy`", "keras": "the Keras model, in floats, in TensorFlow"}
    for key, name in names.items():
        print(f"| {name} | {found[key]:.0f} | {found['numpy'] / found[key]:.1f}× |", flush=True)


def compare(scratch: Path, count: int, workers: int | None) -> None:
    """Every format: ours, the notebook's way, and verification."""
    notebook = json.loads(python(NOTEBOOK, count, scratch))
    ours = {name: synthgen_seconds(*export(scratch / name, count, name, workers)) for name in FORMATS}
    print(f"\nNotebook: start {notebook['start']:.1f} s, {count:,} images {notebook['draw']:.1f} s.\n")
    print("| format | s | images/s | GB | MB | notebook's way, s | faster | bar |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (seconds, memory) in ours.items():
        size = sum(path.stat().st_size for path in (scratch / name).rglob("*") if path.is_file())
        cells = [name, f"{seconds:.1f}", f"{count / seconds:,.0f}", f"{memory:.2f}", f"{size / 1e6:.1f}"]
        if name in TIMES_FASTER:
            theirs = notebook["start"] + notebook["draw"] + notebook[name]
            cells += [f"{theirs:.1f}", f"{theirs / seconds:.1f}×", f"≥ {TIMES_FASTER[name]}×"]
        else:
            cells += ["", "", ""]
        print("| " + " | ".join(cells) + " |", flush=True)
    print("\n| verify | every byte, s | `--regenerate` all, s | of the export | `--files-only`, s | `sha256sum`, s |")
    print("|---|---|---|---|---|---|")
    for name in FORMATS:
        files = sorted(path for path in (scratch / name).rglob("*") if path.is_file())
        options: tuple[tuple[object, ...], ...] = ((), ("--regenerate", count), ("--files-only",))
        whole, anew, hashed = (synthgen_seconds("verify", scratch / name, *some)[0] for some in options)
        began = time.monotonic()
        for path in files:
            hashlib.sha256(path.read_bytes()).digest()
        share, hashing = anew / ours[name][0], time.monotonic() - began
        print(f"| {name} | {whole:.1f} | {anew:.1f} | {share:.2f} (≤ 1) | {hashed:.1f} | {hashing:.2f} |", flush=True)


def against(other: Path, scratch: Path, count: int, workers: int | None) -> None:
    """Both versions in turn, so that what else the machine does slows both."""
    print("\n| format | this version, s | the other, s | faster | bar |\n|---|---|---|---|---|")
    for name in ("tfrecord", "png"):
        pairs = []
        for i in range(ROUNDS):
            here, there = (scratch / f"{name}-{i}-{side}" for side in ("here", "there"))
            ours, _ = synthgen_seconds(*export(here, count, name, workers))
            theirs, _ = synthgen_seconds(*export(there, count, name, workers), source=other)
            pairs.append((ours, theirs))
        ours, theirs = (sorted(side)[ROUNDS // 2] for side in zip(*pairs, strict=True))
        bar = f"≥ {TIMES_OTHER}×" if name == "tfrecord" else ""
        print(f"| {name} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.2f}× | {bar} |", flush=True)


def grow(scratch: Path, workers: int | None) -> None:
    """Does an image cost the same, and memory stay flat, from 60,000 to 1,000,000?"""
    print(f"\n| images, tfrecord | s | µs an image | GB, all processes (≤ {MEMORY_LIMIT_GB}) |\n|---|---|---|---|")
    each = {}
    for count in (60_000, 200_000, 1_000_000):
        seconds, memory = synthgen_seconds(*export(scratch / f"grow-{count}", count, "tfrecord", workers))
        each[count] = seconds / count
        print(f"| {count:,} | {seconds:.1f} | {each[count] * 1e6:.1f} | {memory:.2f} |", flush=True)
    growth = each[1_000_000] / each[200_000]
    print(f"\nA million: {growth:.2f} times the time an image of 200,000 (≤ {GROWTH_LIMIT}).")


def export(out: Path, count: int, file_format: str, workers: int | None) -> list[object]:
    """The arguments of an export."""
    chosen = ["--workers", workers] if workers else []
    return ["export", "--count", count, "--format", file_format, "--out", out, *chosen]


def synthgen_seconds(*arguments: object, source: Path | None = None) -> tuple[float, float]:
    """Run the command line once: its wall time, and the peak memory of all its processes together in GB.

    Args:
        arguments: of the command.
        source: a checkout of another version, to run instead of this one.
    """
    began = time.monotonic()
    command = [sys.executable, "-m", "synthgen", *map(str, arguments)]
    environment = {**os.environ, **({"PYTHONPATH": str(source)} if source else {})}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, cwd=source
    )
    peak = [0]
    watch = threading.Thread(target=_watch_memory, args=(process, peak), daemon=True)
    watch.start()
    _, messages = process.communicate()
    seconds = time.monotonic() - began
    watch.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{messages}")
    return seconds, peak[0] / 1e9


def _watch_memory(process: "subprocess.Popen[str]", peak: list[int]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], sum(_memory(pid) for pid in _family(process.pid)))
        time.sleep(0.25)


def _family(pid: int) -> list[int]:
    """A process and all its descendants."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(member for child in children for member in _family(child))]


def _memory(pid: int) -> int:
    """What a process holds in memory, pages shared with others by their part, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def python(code: str, *arguments: object) -> str:
    """What a program prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


if __name__ == "__main__":
    main()
