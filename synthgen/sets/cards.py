"""The two files that describe a set to others: a data-set card (``README.md``), and ``croissant.json`` for machines.

Both depend on the manifest alone, which holds their hashes. The card's front matter is that of Hugging Face's data-set
cards, so that ``load_dataset(folder)`` finds images and splits.
"""

from collections.abc import Sequence
from pathlib import Path

from synthgen.fashion import CLASS_NAMES
from synthgen.files import publish, write_json
from synthgen.formats.idx import IDX_PREFIX
from synthgen.sets.croissant import CROISSANT_NAME, OTHER_LICENCE, croissant, is_mit
from synthgen.sets.manifest import FileRecord, Manifest

CARD_NAME = "README.md"


def write_cards(folder: Path, manifests: Sequence[Manifest]) -> tuple[FileRecord, ...]:
    """Write ``README.md`` and ``croissant.json`` into a set's folder.

    Args:
        folder: where to write them.
        manifests: of the set's splits, complete except for the records of these two files.

    Returns:
        The records of the two files, for the manifests.
    """
    write_json(folder / CROISSANT_NAME, croissant(manifests))
    with publish(folder / CARD_NAME) as partial:
        partial.write_text(card(manifests), "utf-8")
    return tuple(FileRecord.of(folder, name) for name in (CARD_NAME, CROISSANT_NAME))


def card(manifests: Sequence[Manifest]) -> str:
    """The data-set card of a set's splits, in Markdown."""
    first = manifests[0]
    count = sum(manifest.count for manifest in manifests)
    return "\n".join(
        [
            *_front_matter(manifests, count),
            f"# {count:,} synthetic Fashion-MNIST images",
            "",
            f"Drawn by synthgen {first.made_with.get('synthgen', '')} from the checkpoint "
            f"`{_code(first.checkpoint.name)}`; 28 × 28 pixels, 8-bit grey, "
            f"{'ten classes' if first.labelled else 'without labels'}, stored as {first.format}.",
            "",
            *_split_table(manifests),
            "",
            "## Load",
            "",
            "In this folder:",
            "",
            "```python",
            *_LOADERS[first.format](first.split, first.labelled),
            "```",
            "",
            *_class_table(manifests),
            "## Privacy",
            "",
            f"{first.privacy.sentence} Trained on {first.privacy.trained_on}.",
            "",
            "## Provenance",
            "",
            f"- Checkpoint: SHA-256 `{first.checkpoint.sha256}`",
            f"- Recipe: SHA-256 `{first.checkpoint.recipe_sha256}`",
            f"- Seed {first.seed}, labels {first.labels}",
            *(f"- Digest of {manifest.split}, over labels and pixels: `{manifest.digest}`" for manifest in manifests),
            "",
            "`manifest.json` records the rest, with the SHA-256 of every file; `synthgen verify` checks them. "
            "`croissant.json` says the same to machines.",
            "",
            "## Licence",
            "",
            _licence(first),
            "",
        ]
    )


def _front_matter(manifests: Sequence[Manifest], count: int) -> list[str]:
    first = manifests[0]
    lines = ["---", f"license: {'mit' if is_mit(first) else 'unknown'}", "pretty_name: Synthetic Fashion-MNIST"]
    if first.labelled:
        lines.append("task_categories: [image-classification]")
    lines += ["tags: [synthetic, fashion-mnist]", f"size_categories: ['{_size_category(count)}']"]
    pattern = {"png": "{split}/*/*.png", "hdf5": "{split}-*.h5"}.get(first.format)
    if pattern:
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for manifest in manifests:
            lines += [f"  - split: {manifest.split}", f'    path: "{pattern.format(split=manifest.split)}"']
    return [*lines, "---", ""]


def _size_category(count: int) -> str:
    """One of Hugging Face's size categories."""
    edges = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    edges += [(10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B")]
    return next((name for edge, name in edges if count < edge), "n>1B")


def _split_table(manifests: Sequence[Manifest]) -> list[str]:
    rows = [
        f"| {manifest.split} | {manifest.count:,} | {manifest.start} to {manifest.start + manifest.count - 1} |"
        for manifest in manifests
    ]
    return ["| split | images | indices in the checkpoint's sequence of images |", "|---|---|---|", *rows]


def _class_table(manifests: Sequence[Manifest]) -> list[str]:
    if not manifests[0].labelled:
        return []
    splits = [manifest.split for manifest in manifests]
    rows = [
        f"| {label} | {name} | {' | '.join(f'{manifest.class_counts[label]:,}' for manifest in manifests)} |"
        for label, name in enumerate(CLASS_NAMES)
    ]
    return [
        "## Classes",
        "",
        f"| label | class | {' | '.join(splits)} |",
        f"|---|---|{'---|' * len(splits)}",
        *rows,
        "",
    ]


def _licence(manifest: Manifest) -> str:
    if is_mit(manifest):
        return "MIT, as that of Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747) and of synthgen."
    return OTHER_LICENCE


def _code(text: str) -> str:
    return text.replace("`", "'")


def _load_tfrecord(split: str, labelled: bool) -> list[str]:
    return [
        "import tensorflow_datasets as tfds",
        'builder = tfds.builder_from_directory(".")',
        f'{split} = builder.as_dataset(split="{split}"{", as_supervised=True" if labelled else ""})',
    ]


def _load_hdf5(split: str, labelled: bool) -> list[str]:
    return [
        "import glob, h5py, numpy",
        f'files = [h5py.File(name) for name in sorted(glob.glob("{split}-*.h5"))]',
        _concatenated("file[name][:] for file in files", labelled),
    ]


def _load_npz(split: str, labelled: bool) -> list[str]:
    return [
        "import glob, numpy",
        f'files = [numpy.load(name) for name in sorted(glob.glob("{split}-*.npz"))]',
        _concatenated("file[name] for file in files", labelled),
    ]


def _concatenated(pieces: str, labelled: bool) -> str:
    if labelled:
        return f'images, labels = (numpy.concatenate([{pieces}]) for name in ("images", "labels"))'
    return f"images = numpy.concatenate([{pieces.replace('name', repr('images'))}])"


def _load_png(split: str, labelled: bool) -> list[str]:
    labels = "" if labelled else "labels=None, "
    arguments = f'"{split}", {labels}color_mode="grayscale", image_size=(28, 28)'
    return ["import keras", f"{split} = keras.utils.image_dataset_from_directory({arguments})"]


def _load_idx(split: str, labelled: bool, suffix: str = ".gz") -> list[str]:
    prefix = IDX_PREFIX[split]
    open_ = "gzip.open" if suffix else "open"
    mode = "" if suffix else ', "rb"'
    lines = [
        "import gzip, numpy" if suffix else "import numpy",
        f'images = numpy.frombuffer({open_}("{prefix}-images-idx3-ubyte{suffix}"{mode}).read(), "u1", offset=16)'
        ".reshape(-1, 28, 28)",
    ]
    if labelled:
        name = f"{prefix}-labels-idx1-ubyte{suffix}"
        lines.append(f'labels = numpy.frombuffer({open_}("{name}"{mode}).read(), "u1", offset=8)')
    return lines


_LOADERS = {
    "tfrecord": _load_tfrecord,
    "hdf5": _load_hdf5,
    "png": _load_png,
    "idx": _load_idx,
    "idx-raw": lambda split, labelled: _load_idx(split, labelled, suffix=""),
    "npz": _load_npz,
}
