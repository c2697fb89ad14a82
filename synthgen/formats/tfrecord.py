"""TFRecord shards of ``tf.train.Example``, with what TensorFlow Datasets wants beside them; without TensorFlow.

The protocol-buffer library encodes and parses the Examples. Records may come from strangers.
"""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

from synthgen.formats.base import Batch, Digest, Format, Run
from synthgen.formats.png import decode_png, encode_pngs
from synthgen.index import BLOCK_IMAGES, Shard
from synthgen.subject import IMAGE_SIDE, Labels
from synthgen.untrusted.files import open_file
from synthgen.untrusted.text import parse_json

_INFO_NAME = "dataset_info.json"  # TensorFlow Datasets' list of splits
_MAX_RECORD_BYTES = 1 << 16  # a 28×28 PNG takes about 600

# The part of TensorFlow's example.proto and feature.proto that these records use.
_PROTO = """
  name: "example.proto" syntax: "proto3"
  message_type { name: "Example"
    field { name: "features" number: 1 label: LABEL_OPTIONAL type_name: ".Features" } }
  message_type { name: "Features"
    field { name: "feature" number: 1 label: LABEL_REPEATED type_name: ".Features.FeatureEntry" }
    nested_type { name: "FeatureEntry" options { map_entry: true }
      field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
      field { name: "value" number: 2 label: LABEL_OPTIONAL type_name: ".Feature" } } }
  message_type { name: "Feature"
    field { name: "bytes_list" number: 1 label: LABEL_OPTIONAL type_name: ".BytesList" }
    field { name: "int64_list" number: 3 label: LABEL_OPTIONAL type_name: ".Int64List" } }
  message_type { name: "BytesList" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
  message_type { name: "Int64List" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
"""
_pool = descriptor_pool.DescriptorPool()  # of our own: TensorFlow registers the original in the common one
_pool.Add(text_format.Parse(_PROTO, descriptor_pb2.FileDescriptorProto()))
_Example = message_factory.GetMessageClass(_pool.FindMessageTypeByName("Example"))


class TFRecord(Format):
    """One ``tf.train.Example`` an image: ``image`` (PNG bytes), ``label`` and ``id`` (int64); uncompressed."""

    name = "tfrecord"
    bytes_an_image = 750
    encodings: ClassVar = {".json": "application/json", ".txt": "text/plain"}

    def write(
        self, folder: Path, shard: Shard, split: str, batches: Iterator[Batch], digest: Digest, *, labelled: bool
    ) -> list[str]:
        name = f"{self._dataset_name}-{split}.tfrecord-{shard.index:05d}-of-{shard.of:05d}"
        encoder = ExampleEncoder(labelled=labelled)
        with (folder / name).open("wb") as stream:
            for batch in batches:
                labels = [None] * len(batch) if batch.labels is None else batch.labels.tolist()
                for i, (png, label) in enumerate(zip(encode_pngs(batch.images), labels, strict=True)):
                    stream.write(record_bytes(encoder.encode(png, batch.start + i, label)))
        return [name]

    def read(self, folder: Path, names: Sequence[str], count: int) -> Iterator[Run]:
        with open_file(folder / names[0]) as stream:
            while records := [record for _ in range(BLOCK_IMAGES) if (record := next_record(stream)) is not None]:
                examples = [parse_example(record) for record in records]
                images = np.stack([decode_png(image) for image, _ in examples])
                yield images, _as_labels([label for _, label in examples], self.subject.num_classes)

    def loader(self, split: str, *, labelled: bool) -> list[str]:
        return [
            "import tensorflow_datasets as tfds",
            'builder = tfds.builder_from_directory(".")',
            f'{split} = builder.as_dataset(split="{split}"{", as_supervised=True" if labelled else ""})',
        ]

    def sidecars(
        self, split: str, shard_counts: Sequence[int], shard_bytes: int, *, labelled: bool
    ) -> dict[str, bytes]:
        documents = {
            _INFO_NAME: json.dumps(self._dataset_info(split, shard_counts, shard_bytes, labelled), indent=2),
            "features.json": json.dumps(_features(self.subject.num_classes if labelled else 0), indent=2),
        }
        if labelled:
            documents["label.labels.txt"] = "\n".join(self.subject.class_names)
        return {name: f"{text}\n".encode() for name, text in documents.items()}

    def merged_sidecar(self, name: str, contents: Sequence[bytes]) -> bytes:
        if name != _INFO_NAME:
            return contents[0]
        documents = [parse_json(content) for content in contents]
        merged = {**documents[0], "splits": [split for document in documents for split in document["splits"]]}
        return f"{json.dumps(merged, indent=2)}\n".encode()

    @property
    def _dataset_name(self) -> str:
        """As TensorFlow Datasets takes it."""
        return f"{self.subject.identifier}_synth"

    def _dataset_info(
        self, split: str, shard_counts: Sequence[int], shard_bytes: int, labelled: bool
    ) -> dict[str, Any]:
        info: dict[str, Any] = {
            "name": self._dataset_name,
            "version": "1.0.0",
            "description": f"Synthetic {self.subject.name} images; manifest.json says which checkpoint drew them.",
            "citation": "",
            "fileFormat": "tfrecord",
            "splits": [
                {
                    "name": split,
                    "numBytes": str(shard_bytes),
                    "shardLengths": [str(count) for count in shard_counts],
                    "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                }
            ],
        }
        if labelled:
            info["supervisedKeys"] = {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}}
        return info


class ExampleEncoder:
    """Serialises Examples with ``id``, ``image`` and ``label``, through one message: twice as fast as one for each."""

    def __init__(self, *, labelled: bool) -> None:
        self._example = _Example()
        feature = self._example.features.feature
        self._image, self._index = feature["image"].bytes_list.value, feature["id"].int64_list.value
        self._image.append(b"")
        self._index.append(0)
        self._label = feature["label"].int64_list.value if labelled else [0]
        self._label[:] = [0]

    def encode(self, image: bytes, index: int, label: int | None) -> bytes:
        """The bytes of one Example."""
        self._image[0], self._index[0], self._label[0] = image, index, label or 0
        data: bytes = self._example.SerializeToString(deterministic=True)  # else the features are in any order
        return data


def parse_example(record: bytes) -> tuple[bytes, int | None]:
    """The image's bytes and the label of a serialised Example.

    Raises:
        ValueError: it is no Example with one image and at most one label.
    """
    try:
        feature = _Example.FromString(record).features.feature
    except DecodeError as error:
        raise ValueError(f"a record is no tf.train.Example: {error}") from error
    images, labels = feature["image"].bytes_list.value, feature["label"].int64_list.value  # empty where missing
    if len(images) != 1 or len(labels) > 1:
        raise ValueError("a record has no image, or more than one image or label")
    return images[0], labels[0] if labels else None


def record_bytes(data: bytes) -> bytes:
    """One TFRecord: the data's length (u64) and its checksum (u32), the data and its checksum (u32)."""
    length = len(data).to_bytes(8, "little")
    return length + _masked_crc(length) + data + _masked_crc(data)


def next_record(stream: io.BufferedReader) -> bytes | None:
    """The data of one TFRecord.

    Raises:
        ValueError: the record is cut short, claims more than 64 KiB, or has a wrong checksum: other readers stop there.
    """
    header = stream.read(12)
    if not header:
        return None
    length = int.from_bytes(header[:8], "little")
    if len(header) < 12 or length > _MAX_RECORD_BYTES:
        raise ValueError(f"a record claims {length} bytes")
    data = stream.read(length + 4)
    if len(data) < length + 4:
        raise ValueError("the last record is cut short")
    content = data[:length]
    if header[8:] != _masked_crc(header[:8]) or data[length:] != _masked_crc(content):
        raise ValueError("a record has a wrong checksum")
    return content


def _masked_crc(data: bytes) -> bytes:
    """CRC-32C, turned and shifted as the format wants it so that a checksum of checksums stays sound."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")


def _as_labels(labels: Sequence[int | None], classes: int) -> Labels | None:
    known = [label for label in labels if label is not None]
    if not known:
        return None
    if len(known) != len(labels) or not all(0 <= label < classes for label in known):
        raise ValueError("a record's label is missing or out of range")
    return np.array(known, np.uint8)


def _features(classes: int) -> dict[str, Any]:
    core = "tensorflow_datasets.core.features"
    features: dict[str, Any] = {
        "image": {
            "pythonClassName": f"{core}.image_feature.Image",
            "image": {
                "shape": {"dimensions": [str(IMAGE_SIDE), str(IMAGE_SIDE), "1"]},
                "dtype": "uint8",
                "encodingFormat": "png",
            },
        }
    }
    if classes:
        features["label"] = {
            "pythonClassName": f"{core}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(classes)},
        }
    return {
        "pythonClassName": f"{core}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
