"""JSON and TOML: bounded in depth, digits, length of texts and number of values."""

import json
import math
import re
import tomllib
from typing import Any, NoReturn

MAX_DEPTH = 32
MAX_VALUES = 1_500_000  # a manifest of 99,999 shards has a million
_MAX_DIGITS = 40  # a seed has at most 20
_MAX_TEXT_BYTES = 1 << 20  # 1 MiB
_MAX_TOML_CHARACTERS = 1 << 16
_MAX_DOTS = 100  # in a line of TOML: its parser takes a minute and 4 GB for a key of 32,000
# A text, even one without an end, is one token: brackets in it do not count. Possessive, so that it takes linear time.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{\]}]', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(data: bytes, most_values: int = MAX_VALUES) -> Any:
    """The value of a JSON document in UTF-8.

    Depth and number of values are bounded on the bytes, before anything is built: 32 MB of brackets would fill 1 GB.

    Raises:
        ValueError: it is no JSON (NaN and infinity are none); nested deeper than 32; has more than ``most_values``
            values, a number of more than 40 digits, a text above 1 MiB, a key twice or half a surrogate pair.
    """
    if data.count(b",") + data.count(b"[") + data.count(b"{") > most_values:
        raise ValueError(f"more than {most_values:,} values")
    depth = 0
    for token in _TOKEN.finditer(data):
        if (first := data[token.start()]) == ord('"'):
            if token.end() - token.start() > _MAX_TEXT_BYTES:
                raise ValueError("a text is longer than 1 MiB")
        elif first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH}")
        else:
            depth -= 1
    document = json.loads(
        data.decode("utf-8"),
        object_pairs_hook=_object,
        parse_int=_integer,
        parse_float=_real,
        parse_constant=_no_constant,
    )
    if _SURROGATE.search(data):
        _expect_encodable(document)
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):  # readers differ in which of the two they take
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1) if len(keys) <= MAX_DEPTH else "…"
        raise ValueError(f"key {twice!r:.80} stands twice in an object")
    return document


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"number {text:.20}… has {len(text):,} digits; expected at most {_MAX_DIGITS}")
    return int(text)


def _real(text: str) -> float:
    number = float(text) if len(text) <= _MAX_DIGITS else math.inf
    if not math.isfinite(number):
        raise ValueError(f"number {text:.20}… is too large or too long")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _expect_encodable(document: Any) -> None:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half a surrogate pair") from error


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML document of at most 64 KiB.

    Raises:
        ValueError: it is longer, no TOML, nested deeper than 32, or has an integer of more than 40 digits or a line of
            more than 100 dots.
    """
    if len(text) > _MAX_TOML_CHARACTERS:
        raise ValueError(f"{len(text):,} characters; expected at most {_MAX_TOML_CHARACTERS:,}")
    if max(line.count(".") for line in text.split("\n")) > _MAX_DOTS:
        raise ValueError(f"a line has more than {_MAX_DOTS} dots")
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    left: list[tuple[Any, int]] = [(document, 0)]  # no recursion: a key of 9,000 dots is 9,000 tables
    while left:
        value, depth = left.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        if type(value) is int and abs(value) >= 10**_MAX_DIGITS:
            raise ValueError(f"an integer has more than {_MAX_DIGITS} digits")
        if isinstance(value, dict | list):
            left += [(item, depth + 1) for item in (value.values() if isinstance(value, dict) else value)]
    return document
