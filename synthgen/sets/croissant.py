"""Croissant 1.1: one document that describes a set to machines, with its provenance in terms of PROV-O.

Croissant (Akhtar et al. 2024, arXiv:2403.19546) is JSON-LD that data-set search engines and ``mlcroissant`` read;
PROV-O (W3C recommendation, 2013) says what was derived from what, by which activity. The document depends on the
manifest alone and has no date, so that the same export gives the same bytes.
"""

import json
import re
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthgen.formats.base import Format
from synthgen.formats.table import FORMATS
from synthgen.model.claims import origin_words
from synthgen.sets.manifest import SHARDS_PER_LIST, FileRecord, Manifest
from synthgen.subject import FASHION, Subject

CROISSANT_NAME = "croissant.json"
MIT_LICENCE = "https://spdx.org/licenses/MIT.html"
OTHER_LICENCE = "Not known to synthgen: the generator was trained on images of its user's own."
_CONTEXT_PATH = Path(__file__).parent / "croissant-context.json"  # as the specification has it


def croissant(manifests: Sequence[Manifest]) -> dict[str, Any]:
    """The Croissant document of a set, as JSON-ready values.

    Args:
        manifests: of its splits, all drawn in one export; at least one.
    """
    first = manifests[0]
    file_format = FORMATS[first.format]
    count = sum(manifest.count for manifest in manifests)
    document: dict[str, Any] = {
        "@context": json.loads(_CONTEXT_PATH.read_text("utf-8")),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": f"{first.subject.identifier}_synth",
        "description": (
            f"{count:,} synthetic {first.subject.name} images, 28 x 28 grey pixels, drawn from checkpoint "
            f"{first.checkpoint.name} ({origin_words(first.checkpoint.sha256)}) with seed {first.seed}. "
            f"{first.privacy.summary}"
        ),
        "version": "1.0.0",
        "license": MIT_LICENCE if is_mit(first) else licence_of(first),
        "creator": {"@type": "sc:Organization", "name": "synthgen"},
        "keywords": ["synthetic data", first.subject.name, "image classification"],
        "citeAs": f"synthgen {first.made_with.get('synthgen', '')}, digest {' '.join(m.digest for m in manifests)}",
        "distribution": [
            *_file_objects(manifests, file_format),
            *file_format.file_sets([manifest.split for manifest in manifests]),
        ],
        "recordSet": _record_sets(first, file_format),
        "prov:wasDerivedFrom": _checkpoint(first),
        "prov:wasGeneratedBy": [_activity(manifest) for manifest in manifests],
    }
    return document


def is_mit(manifest: Manifest) -> bool:
    """Whether the generator was trained on Fashion-MNIST only, which has the MIT licence, as synthgen has."""
    data = manifest.checkpoint.recipe.get("data", {})
    return bool(data.get("official", True))


def licence_of(manifest: Manifest) -> str:
    """What is known of the licence of the images behind a set that is not of Fashion-MNIST."""
    licence = None if manifest.subject == FASHION else manifest.subject.licence  # or an earlier version's own images
    return OTHER_LICENCE if licence is None else f"The generator was trained on images under: {licence}"


def _file_objects(manifests: Sequence[Manifest], file_format: Format) -> list[dict[str, Any]]:
    files = {file.name: file for manifest in manifests for file in manifest.sidecars}
    sets = []
    for manifest in manifests:
        shard_files = [file for shard in manifest.shards for file in shard.files]
        if len(manifest.shards) > SHARDS_PER_LIST:  # the manifest's own lists hold their hashes
            sets.append(_shard_files(manifest.split, shard_files, file_format))
        else:
            files |= {file.name: file for file in shard_files}
    return [*sets, *(_file_object(file, file_format) for file in files.values())]


def _shard_files(split: str, files: Sequence[FileRecord], file_format: Format) -> dict[str, Any]:
    name = f"{split}-shards"
    patterns = {re.sub(r"\d{5}-of-\d{5}", "*", file.name) for file in files}
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "description": f"{len(files):,} files; shard-lists/ holds the SHA-256 of each.",
        "encodingFormat": file_format.encoding(files[0].name),
        "includes": sorted(patterns),
    }


def _file_object(file: FileRecord, file_format: Format) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.name,
        "name": file.name,
        "contentUrl": urllib.parse.quote(file.name),
        "contentSize": f"{file.bytes} B",
        "encodingFormat": file_format.encoding(file.name),
        "sha256": file.sha256,
    }


def _record_sets(manifest: Manifest, file_format: Format) -> list[dict[str, Any]]:
    record_sets = [_class_records(manifest.subject)] if manifest.labelled else []
    if fields := file_format.image_fields(labelled=manifest.labelled):
        images = {"@type": "cr:RecordSet", "@id": "images", "name": "images", "field": fields}
        record_sets.append({**images, "description": "One record an image."})
    return record_sets


def _class_records(subject: Subject) -> dict[str, Any]:
    fields = [("label", "cr:Int64"), ("name", "sc:Text")]
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "description": f"The {subject.classes_in_words} of {subject.name}.",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/label"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"classes/{name}",
                "name": name,
                "dataType": kind,
                "description": f"Its {name}.",
            }
            for name, kind in fields
        ],
        "data": [{"classes/label": label, "classes/name": name} for label, name in enumerate(subject.class_names)],
    }


def _checkpoint(manifest: Manifest) -> dict[str, Any]:
    return {
        "@id": _checkpoint_id(manifest),
        "@type": "prov:Entity",
        "name": f"checkpoint {manifest.checkpoint.name} ({origin_words(manifest.checkpoint.sha256)})",
        "description": f"Trained on {manifest.privacy.trained_on}",
        "sc:sha256": manifest.checkpoint.sha256,
    }


def _checkpoint_id(manifest: Manifest) -> str:
    return f"urn:sha256:{manifest.checkpoint.sha256}"


def _activity(manifest: Manifest) -> dict[str, Any]:
    """The export of one split, with everything that decides its pixels."""
    properties: dict[str, Any] = {
        "seed": str(manifest.seed),  # as text: it may pass 2^53, up to which JSON readers are exact
        "start": str(manifest.start),
        "count": str(manifest.count),
        "labels": manifest.labels,
        "reproducibility": manifest.reproducibility,
        "privacy guarantee": manifest.privacy.guarantee,
    }
    if (proof := manifest.privacy.proof) is not None:
        properties |= {"epsilon": proof.epsilon, "delta": proof.delta}
        if (curve := proof.shown_curve) is not None:
            properties |= {
                "mu of Gaussian differential privacy": curve.gdp_mu,
                "largest true positive rate at 1 % false positives": curve.true_positive_rate,
            }
    return {
        "@type": "prov:Activity",
        "name": f"synthgen export, split {manifest.split}",
        "prov:used": {"@id": _checkpoint_id(manifest)},
        "prov:wasAssociatedWith": {
            "@type": "prov:SoftwareAgent",
            "name": "synthgen",
            "softwareVersion": manifest.made_with.get("synthgen", "unknown"),
        },
        "additionalProperty": [
            {"@type": "sc:PropertyValue", "name": name, "value": value} for name, value in properties.items()
        ],
    }
