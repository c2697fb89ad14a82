"""The files that describe a set to others: a data-set card (``README.md``), and ``croissant.json`` for machines.

They depend on the manifest alone, which holds their hashes, so that ``verify`` can write them again and compare. The
card's front matter is that of Hugging Face's data-set cards, so that ``load_dataset(folder)`` finds images and splits.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace

from synthgen.formats.table import FORMATS
from synthgen.model.claims import BUILT_IN, origin_words
from synthgen.model.ledgers import shortness
from synthgen.model.recipe import Recipe
from synthgen.sets.croissant import CROISSANT_NAME, croissant, is_mit, licence_of
from synthgen.sets.escaping import in_code_span, in_markdown, json_ld_bytes
from synthgen.sets.manifest import Manifest, content_record

CARD_NAME = "README.md"


def sidecar_files(manifests: Sequence[Manifest]) -> dict[str, bytes]:
    """What an export writes beside the shards and the manifests of a set's splits: name → content."""
    file_format = FORMATS[manifests[0].format].showing(manifests[0].subject)
    of_splits = [
        file_format.sidecars(
            manifest.split,
            [shard.count for shard in manifest.shards],
            sum(file.bytes for shard in manifest.shards for file in shard.files),
            labelled=manifest.labelled,
        )
        for manifest in manifests
    ]
    files = of_splits[0]
    if len(manifests) > 1:
        files = {name: file_format.merged_sidecar(name, [split[name] for split in of_splits]) for name in files}
    records = tuple(content_record(name, data) for name, data in files.items())
    return files | _card_files([replace(manifest, sidecars=records, shard_lists=()) for manifest in manifests])


def _card_files(manifests: Sequence[Manifest]) -> dict[str, bytes]:
    return {CARD_NAME: card(manifests).encode(), CROISSANT_NAME: json_ld_bytes(croissant(manifests))}


def card(manifests: Sequence[Manifest]) -> str:
    """The data-set card of a set's splits, in Markdown."""
    first = manifests[0]
    count = sum(manifest.count for manifest in manifests)
    return "\n".join(
        [
            *_front_matter(manifests, count),
            f"# {count:,} synthetic {in_markdown(first.subject.name)} images",
            "",
            f"Drawn by synthgen {in_markdown(first.made_with.get('synthgen', ''))} from the checkpoint "
            f"{in_code_span(first.checkpoint.name)} ({origin_words(first.checkpoint.sha256)}); "
            f"28 × 28 pixels, 8-bit grey, {first.subject.classes_in_words if first.labelled else 'without labels'}, "
            f"stored as {first.format}.",
            "",
            *_split_table(manifests),
            "",
            "## Load",
            "",
            "In this folder:",
            "",
            "```python",
            *FORMATS[first.format].loader(first.split, labelled=first.labelled),
            "```",
            "",
            *_class_table(manifests),
            "## Privacy",
            "",
            f"{first.privacy.summary} Trained on {in_markdown(first.privacy.trained_on)}.",
            *_curve_table(first),
            *_doubt(first),
            "",
            "## Provenance",
            "",
            f"- Checkpoint: SHA-256 {in_code_span(first.checkpoint.sha256)}",
            f"- Recipe: SHA-256 {in_code_span(first.checkpoint.recipe_sha256)}",
            f"- Seed {first.seed}, labels {first.labels}",
            *(
                f"- Digest of {manifest.split}, over labels and pixels: {in_code_span(manifest.digest)}"
                for manifest in manifests
            ),
            "",
            first.reproducibility,
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
    lines = [
        "---",
        f"license: {'mit' if is_mit(first) else 'unknown'}",
        f"pretty_name: {_yaml(f'Synthetic {first.subject.name}')}",
    ]
    if first.labelled:
        lines.append("task_categories: [image-classification]")
    lines += [
        f"tags: [synthetic, {first.subject.identifier.replace('_', '-')}]",
        f"size_categories: ['{_size_category(count)}']",
    ]
    if (files := FORMATS[first.format].data_files) is not None:
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for manifest in manifests:
            lines += [f"  - split: {manifest.split}", f'    path: "{files.format(split=manifest.split)}"']
    return [*lines, "---", ""]


def _yaml(text: str) -> str:
    """A text as a value in YAML; plain where it may be."""
    return text if re.fullmatch(r"[A-Za-z][A-Za-z0-9 -]*", text) else json.dumps(text)


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
    splits, counts = [manifest.split for manifest in manifests], [manifest.class_counts for manifest in manifests]
    rows = [
        f"| {label} | {in_markdown(name)} | {' | '.join(f'{each[label]:,}' for each in counts)} |"
        for label, name in enumerate(manifests[0].subject.class_names)
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
    return licence_of(manifest)


def _curve_table(manifest: Manifest) -> list[str]:
    """What is proven besides epsilon at its delta, where that is known."""
    proof = manifest.privacy.proof
    if proof is None or (curve := proof.shown_curve) is None:
        return []
    facts = [(name, value) for name, value in curve.facts(proof.delta) if value != curve.sentence]
    return ["", "| | proven besides |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts)]


def _doubt(manifest: Manifest) -> list[str]:
    """That a formal claim rests on a ledger that synthgen cannot vouch for, where it cannot."""
    if not manifest.privacy.protects or manifest.checkpoint.sha256 in BUILT_IN:
        return []
    short = shortness(Recipe.from_dict(manifest.checkpoint.recipe), manifest.privacy)
    return [
        "",
        "This is the claim of whoever trained the checkpoint. It follows from the ledger in `manifest.json`; that the "
        "ledger lists all that was run, only they can say." + (f" It {short}." if short else ""),
    ]
