"""JSON from strangers as dataclasses: exactly their fields, each of its declared type; else a ValueError."""

import functools
import typing
from collections.abc import Callable
from dataclasses import fields
from typing import Any


def record_of(record: Any, document: Any, **converters: Callable[[Any], Any]) -> Any:
    """Build a dataclass from a JSON object, some of its fields by ``converters``."""
    expect(isinstance(document, dict), f"a {record.__name__} is no JSON object")
    hints = _field_types(record)
    names = set(hints)
    odd = names.symmetric_difference(document)
    expect(not odd, f"unknown or missing in {record.__name__}: {', '.join(sorted(map(str, odd)))[:200]}")
    values = {}
    for name in names:
        if name in converters:
            values[name] = converters[name](document[name])
            continue
        if type(document[name]) is not hints[name]:  # the message is made only where it is needed
            raise ValueError(f"{name} is {document[name]!r:.80}; expected {hints[name].__name__}")
        expect_printable(document[name], name)
        values[name] = document[name]
    return record(**values)


@functools.cache
def _field_types(record: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(record)
    return {field.name: typing.get_origin(hints[field.name]) or hints[field.name] for field in fields(record)}


def expect_printable(value: Any, name: str) -> None:
    """Refuse texts that would play tricks on a terminal or cannot be encoded, also inside nested values."""
    if isinstance(value, str):
        if not value.isprintable():
            raise ValueError(f"{name} holds characters that cannot be printed")
    elif isinstance(value, dict):
        for key, item in value.items():
            expect_printable(key, name)
            expect_printable(item, name)
    elif isinstance(value, list):
        for item in value:
            expect_printable(item, name)


def texts_of(value: Any, name: str = "made_with") -> dict[str, str]:
    """Check and read a JSON object of a few short printable texts; raises ValueError."""
    expect(isinstance(value, dict) and all(type(v) is str for v in value.values()), f"{name} holds no texts")
    expect_printable(value, name)
    short = len(value) <= 50 and all(len(text) <= 1000 for item in value.items() for text in item)
    expect(short, f"{name} is too long")
    return dict(value)


def records_of(parse: Callable[[Any], Any], value: Any) -> tuple[Any, ...]:
    """Parse each item of a JSON list."""
    expect(isinstance(value, list), "a list of records is no list")
    return tuple(parse(item) for item in value)


def expect(condition: bool, problem: str) -> None:
    """Raise ValueError with the text ``problem`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(problem)
