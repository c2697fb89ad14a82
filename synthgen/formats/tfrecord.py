"""TFRecord shards of ``tf.train.Example``, with what TensorFlow Datasets wants beside them; without TensorFlow.

The protocol-buffer library encodes and parses the Examples. Records may come from strangers.
"""

import functools
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from synthgen.fashion import CLASS_NAMES, IMAGE_SIDE, NUM_CLASSES, Labels
from synthgen.formats.base import Batch, Format, Run, Writer
from synthgen.formats.png import decode_png, encode_pngs
from synthgen.index import BLOCK_IMAGES, Shard

DATASET_NAME = "fashion_mnist_synth"
_INFO_NAME = "dataset_info.json"  # TensorFlow Datasets' list of splits
_MAX_RECORD_BYTES = 1 << 16  # a 28×28 PNG takes about 600


class TFRecord(Format):
    """One ``tf.train.Example`` an image: ``image`` (PNG bytes), ``label`` and ``id`` (int64); uncompressed."""

    name = "tfrecord"
    bytes_an_image = 750
    encodings: ClassVar = {".json": "application/json", ".txt": "text/plain"}

    def writer(self, folder: Path, shard: Shard, split: str, *, labelled: bool) -> Writer:
        name = f"{DATASET_NAME}-{split}.tfrecord-{shard.index:05d}-of-{shard.of:05d}"
        return _TFRecordWriter(folder, shard, split, labelled=labelled, names=[name])

    def read(self, folder: Path, names: Sequence[str], count: int) -> Iterator[Run]:
        with (folder / names[0]).open("rb") as stream:
            while records := [record for _ in range(BLOCK_IMAGES) if (record := next_record(stream)) is not None]:
                examples = [parse_example(record) for record in records]
                images = np.stack([decode_png(image) for image, _ in examples])
                yield images, _as_labels([label for _, label in examples])

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
            _INFO_NAME: json.dumps(_dataset_info(split, shard_counts, shard_bytes, labelled), indent=2),
            "features.json": json.dumps(_features(labelled), indent=2),
        }
        if labelled:
            documents["label.labels.txt"] = "\n".join(CLASS_NAMES)
        return {name: f"{text}\n".encode() for name, text in documents.items()}

    def merged_sidecar(self, name: str, contents: Sequence[bytes]) -> bytes:
        if name != _INFO_NAME:
            return contents[0]
        documents = [json.loads(content) for content in contents]
        merged = {**documents[0], "splits": [split for document in documents for split in document["splits"]]}
        return f"{json.dumps(merged, indent=2)}\n".encode()


class _TFRecordWriter(Writer):
    def begin(self) -> None:
        self._stream = self.opened.enter_context(self.paths[0].open("wb"))

    def write(self, batch: Batch) -> None:
        labels = [None] * len(batch) if batch.labels is None else batch.labels.tolist()
        for i, (png, label) in enumerate(zip(encode_pngs(batch.images), labels, strict=True)):
            self._stream.write(record_bytes(example_bytes(png, batch.start + i, label)))


def example_bytes(image: bytes, index: int, label: int | None) -> bytes:
    """A serialised Example with the features ``id``, ``image`` and ``label``, in that order."""
    example = _example_class()()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(image)
    feature["id"].int64_list.value.append(index)
    if label is not None:
        feature["label"].int64_list.value.append(label)
    data: bytes = example.SerializeToString(deterministic=True)  # else the features are in any order
    return data


def parse_example(record: bytes) -> tuple[bytes, int | None]:
    """The image's bytes and the label of a serialised Example.

    Raises:
        ValueError: it is no Example with one image and at most one label.
    """
    from google.protobuf.message import DecodeError

    try:
        feature = _example_class().FromString(record).features.feature
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
    """The data of one TFRecord, its checksums unread: SHA-256 guards the whole file.

    Raises:
        ValueError: the record is cut short, or claims more than 64 KiB.
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
    return data[:length]


def _masked_crc(data: bytes) -> bytes:
    """CRC-32C, turned and shifted as the format wants it so that a checksum of checksums stays sound."""
    import google_crc32c

    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")


@functools.cache
def _example_class() -> Any:
    """The part of TensorFlow's ``example.proto`` and ``feature.proto`` that these records use.

    Its pool is its own, so that TensorFlow can register the original in the common one.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    types = descriptor_pb2.FieldDescriptorProto
    key, value = _proto_field("key", 1, types.TYPE_STRING), _proto_field("value", 2, ".Feature")
    entry = {"name": "FeatureEntry", "field": [key, value], "options": {"map_entry": True}}
    messages = [
        {"name": "BytesList", "field": [_proto_field("value", 1, types.TYPE_BYTES, many=True)]},
        {"name": "Int64List", "field": [_proto_field("value", 1, types.TYPE_INT64, many=True)]},
        {
            "name": "Feature",
            "field": [_proto_field("bytes_list", 1, ".BytesList"), _proto_field("int64_list", 3, ".Int64List")],
        },
        {
            "name": "Features",
            "field": [_proto_field("feature", 1, ".Features.FeatureEntry", many=True)],
            "nested_type": [entry],
        },
        {"name": "Example", "field": [_proto_field("features", 1, ".Features")]},
    ]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(descriptor_pb2.FileDescriptorProto(name="example.proto", syntax="proto3", message_type=messages))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Example"))


def _proto_field(name: str, number: int, kind: int | str, *, many: bool = False) -> dict[str, Any]:
    """A field of a scalar type, given by its number, or of a message, given by its name."""
    described = {"type_name": kind} if isinstance(kind, str) else {"type": kind}
    return {"name": name, "number": number, "label": 3 if many else 1, **described}


def _as_labels(labels: Sequence[int | None]) -> Labels | None:
    known = [label for label in labels if label is not None]
    if not known:
        return None
    if len(known) != len(labels) or not all(0 <= label < NUM_CLASSES for label in known):
        raise ValueError("a record's label is missing or out of range")
    return np.array(known, np.uint8)


def _dataset_info(split: str, shard_counts: Sequence[int], shard_bytes: int, labelled: bool) -> dict[str, Any]:
    info: dict[str, Any] = {
        "name": DATASET_NAME,
        "version": "1.0.0",
        "description": "Synthetic Fashion-MNIST images; manifest.json says which checkpoint drew them.",
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


def _features(labelled: bool) -> dict[str, Any]:
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
    if labelled:
        features["label"] = {
            "pythonClassName": f"{core}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(NUM_CLASSES)},
        }
    return {
        "pythonClassName": f"{core}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
