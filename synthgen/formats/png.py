"""28×28 grey images as PNG and back (ISO/IEC 15948), and the format of a PNG file an image.

The encoder writes one fixed header and rows without a filter, compressed by zlib-ng: 7 µs an image where Pillow takes
50. The decoder reads that layout itself and any other PNG of that size and depth through Pillow.
"""

import io
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from zlib_ng import zlib_ng

from synthgen.files import MALFORMED, is_inside, is_own_file, sha256_of_bytes
from synthgen.formats.base import IMAGE_SHAPE, Batch, Digest, Format, Run
from synthgen.index import BLOCK_IMAGES, Shard, pieces
from synthgen.subject import IMAGE_SIDE
from synthgen.untrusted.files import open_file, read_file

_ROW_BYTES = 1 + IMAGE_SIDE  # each row begins with the number of its filter; 0 is none
_RAW_BYTES = IMAGE_SIDE * _ROW_BYTES
# Measured on shipped images: 567 bytes in 5 µs; zlib takes 27 µs for 536, a seventh of an export's time. A window of
# 1 KiB already holds a whole image.
_LEVEL, _WINDOW_BITS, _MEMORY_LEVEL = 1, 10, 5


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(data, zlib.crc32(kind)).to_bytes(4, "big")


_GREY_8_BIT = bytes([8, 0, 0, 0, 0])  # depth, colour type, compression, filter method, interlace
_BEGIN = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", IMAGE_SIDE.to_bytes(4, "big") * 2 + _GREY_8_BIT)
_END = _chunk(b"IEND", b"")
_UNDECODABLE: tuple[type[Exception], ...] = (*MALFORMED, SyntaxError, IndexError)  # what Pillow raises
_DATA_AT = len(_BEGIN) + 8
_SIZE_AT, _INTERLACE_AT = 16, 28  # in a PNG file
_MAX_PNG_BYTES = 1 << 16  # a 28×28 PNG takes about 600
_MAX_LISTING_LINE_BYTES = 200  # an image: 64 hexadecimal digits and a path of about 40
_UNLABELLED = "unlabelled"


class PNG(Format):
    """A PNG file an image in class folders, and for each shard a ``sha256sum`` listing: the shard's one file."""

    name = "png"
    bytes_an_image = 4_300  # each fills a block of the file system
    file_an_image = True
    data_files = "{split}/*/*.png"
    encodings: ClassVar = {".sha256": "text/plain"}

    def write(
        self, folder: Path, shard: Shard, split: str, batches: Iterator[Batch], digest: Digest, *, labelled: bool
    ) -> list[str]:
        for class_folder_name in self.folders(split, labelled=labelled):
            (folder / class_folder_name).mkdir(parents=True, exist_ok=True)
        listing, class_folders = [], self._class_folders()
        for batch in batches:
            for i, data in enumerate(encode_pngs(batch.images)):
                class_name = _UNLABELLED if batch.labels is None else class_folders[batch.labels[i]]
                name = f"{split}/{class_name}/{batch.start + i:09d}.png"
                (folder / name).write_bytes(data)
                listing.append(f"{sha256_of_bytes(data)}  {name}\n")
        name = f"checksums/{shard.name(split)}.sha256"
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("".join(listing), "utf-8")
        return [name]

    def read(self, folder: Path, names: Sequence[str], count: int) -> Iterator[Run]:
        entries = self.listed(folder, names, count)
        label_of = {name: label for label, name in enumerate(self._class_folders())}
        for piece in pieces(len(entries), BLOCK_IMAGES):
            images = np.stack([_read_image(folder, digest, name) for digest, name in entries[piece]])
            labels = [label_of.get(name.split("/")[-2]) for _, name in entries[piece] if "/" in name]
            known = [label for label in labels if label is not None]
            yield images, np.array(known, np.uint8) if len(known) == len(images) else None

    def loader(self, split: str, *, labelled: bool) -> list[str]:
        labels = "" if labelled else "labels=None, "
        arguments = f'"{split}", {labels}color_mode="grayscale", image_size=(28, 28)'
        return ["import keras", f"{split} = keras.utils.image_dataset_from_directory({arguments})"]

    def listed(self, folder: Path, names: Sequence[str], count: int) -> list[tuple[str, str]]:
        """(SHA-256, name) of every image of a shard, in index order.

        Raises:
            OSError: the listing cannot be read.
            ValueError: it has a line of another form, a name that leaves the folder, or too many bytes for ``count``.
        """
        entries = []
        with open_file(folder / names[0]) as stream:
            if os.fstat(stream.fileno()).st_size > count * _MAX_LISTING_LINE_BYTES:
                raise ValueError(f"the listing is too large for {count} images")
            while data := stream.readline(_MAX_LISTING_LINE_BYTES):
                line = data.decode("utf-8").rstrip("\r\n")
                digest, separator, name = line.partition("  ")
                if not separator or len(digest) != 64 or not is_inside(name):
                    raise ValueError(f"listing line {line[:120]!r} is not of the form 'SHA-256  name'")
                entries.append((digest, name))
        return entries

    def folders(self, split: str, *, labelled: bool) -> set[str]:
        return {f"{split}/{name}" for name in (self._class_folders() if labelled else [_UNLABELLED])}

    def _class_folders(self) -> list[str]:
        return [self.subject.class_folder(label) for label in range(self.subject.num_classes)]

    def file_sets(self, splits: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {
                "@type": "cr:FileSet",
                "@id": "png-files",
                "name": "png-files",
                "description": "The images; checksums/ lists the SHA-256 of each.",
                "encodingFormat": "image/png",
                "includes": [self.data_files.format(split=split) for split in splits],
            }
        ]

    def image_fields(self, *, labelled: bool) -> list[dict[str, Any]]:
        fields = [
            _field("image", "sc:ImageObject", "28 x 28 pixels, 8-bit grey.", "content"),
            _field("id", "cr:Int64", "Its index in the checkpoint's sequence of images.", "filename", r"^(\d+)\.png$"),
            _field("split", "sc:Text", "train or test.", "fullpath", r"^(?:.*/)?(train|test)/[^/]+/[^/]+$"),
        ]
        if labelled:
            path = r"^(?:.*/)?(?:train|test)/(\d)_[^/]+/[^/]+$"
            fields.append(_field("label", "cr:Int64", "The class, 0 to 9.", "fullpath", path))
        return fields


def encode_pngs(images: npt.NDArray[np.uint8]) -> Iterator[bytes]:
    """Each of uint8 images (n, 28, 28) as the bytes of a PNG file."""
    rows = np.zeros((len(images), IMAGE_SIDE, _ROW_BYTES), np.uint8)
    rows[:, :, 1:] = images
    raw = memoryview(rows.tobytes())
    for first in range(0, len(raw), _RAW_BYTES):
        stream = zlib_ng.compressobj(_LEVEL, zlib_ng.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL)
        data = stream.compress(raw[first : first + _RAW_BYTES]) + stream.flush()
        yield _BEGIN + _chunk(b"IDAT", data) + _END


def decode_png(data: bytes) -> npt.NDArray[np.uint8]:
    """The (28, 28) uint8 image in the bytes of a PNG file.

    Raises:
        ValueError: it is no PNG, or not one of 28×28 grey pixels of 8 bits.
    """
    image = _decode_own(data)
    return _decode_any(data) if image is None else image


def _decode_own(data: bytes) -> npt.NDArray[np.uint8] | None:
    """The image if ``data`` is laid out as ``encode_pngs`` does and sound, else None."""
    length = len(data) - len(_BEGIN) - 12 - len(_END)
    if length < 0 or not data.startswith(_BEGIN) or not data.endswith(_END):
        return None
    compressed = data[_DATA_AT : _DATA_AT + length]
    if data[len(_BEGIN) : -len(_END)] != _chunk(b"IDAT", compressed):
        return None
    try:
        raw = zlib.decompressobj().decompress(compressed, _RAW_BYTES + 1)
    except zlib.error:
        return None
    if len(raw) != _RAW_BYTES:
        return None
    rows = np.frombuffer(raw, np.uint8).reshape(IMAGE_SIDE, _ROW_BYTES)
    return None if rows[:, 0].any() else rows[:, 1:]


def _decode_any(data: bytes) -> npt.NDArray[np.uint8]:
    from PIL import Image  # takes a tenth of a second, and is seldom needed

    bare = _bare(data)
    try:
        with Image.open(io.BytesIO(bare), formats=["PNG"]) as image:
            return np.asarray(image)
    except _UNDECODABLE as error:
        raise ValueError(f"an image is no PNG: {error}") from error


def _bare(data: bytes) -> bytes:
    """A PNG of 28×28 grey pixels without its texts, profiles and animations, each of which may unpack to megabytes.

    Raises:
        ValueError: it is no PNG, or another one.
    """
    if len(data) < len(_BEGIN) or data[:_SIZE_AT] != _BEGIN[:_SIZE_AT]:
        raise ValueError("an image is no PNG")
    if data[_SIZE_AT:_INTERLACE_AT] != _BEGIN[_SIZE_AT:_INTERLACE_AT]:  # before Pillow makes room for the pixels
        width, height = (int.from_bytes(data[i : i + 4], "big") for i in (_SIZE_AT, _SIZE_AT + 4))
        raise ValueError(f"an image is {width} by {height} pixels or no 8-bit grey; expected L {IMAGE_SHAPE}")
    kept, place = [data[: len(_BEGIN)]], len(_BEGIN)
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"IDAT":
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, _END])


def _read_image(folder: Path, digest: str, name: str) -> npt.NDArray[np.uint8]:
    """One image, hashed before it is decoded: the listing vouches for it, as the manifest does for the listing."""
    if not is_own_file(folder, name):
        raise ValueError(f"{name}: missing")
    data = read_file(folder / name, _MAX_PNG_BYTES)
    if sha256_of_bytes(data) != digest:
        raise ValueError(f"{name}: altered: its SHA-256 is not the one listed")
    return decode_png(data)


def _field(name: str, data_type: str, description: str, file_property: str, regex: str | None = None) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": "png-files"}, "extract": {"fileProperty": file_property}}
    if regex:
        source["transform"] = {"regex": regex}
    return {
        "@type": "cr:Field",
        "@id": f"images/{name}",
        "name": name,
        "dataType": data_type,
        "source": source,
        "description": description,
    }
