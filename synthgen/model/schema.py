"""TOML documents as frozen dataclasses: fields declare their limits, and every error names key, value and expectation.

A ``Section`` checks its fields when it is made, so that no invalid value exists. Nothing here knows any recipe.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from synthgen.errors import PrivacyError, RecipeError
from synthgen.untrusted.files import read_file
from synthgen.untrusted.text import parse_toml

_MAX_TOML_BYTES = 1 << 16  # 64 KiB
_MAX_SECTIONS = 8  # of a key
_MAX_PROBLEMS, _MAX_LINE = 20, 600  # unknown keys of a section that an error names, and characters of all it names

T = TypeVar("T")


def between(meaning: str, low: float, high: float, default: Any = dataclasses.MISSING) -> Any:
    """A field for a number from ``low`` to ``high``, or for a tuple of such integers."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "low": low, "high": high})


def one_of(meaning: str, *choices: str, default: Any = dataclasses.MISSING) -> Any:
    """A field for one of a few texts."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "choices": choices})


def switch(meaning: str, default: bool) -> Any:
    """A field for true or false."""
    return dataclasses.field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a document.

    Raises:
        RecipeError: a field is of another type than declared, or outside its limits.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))


def toml_text(path: Path) -> str:
    """A TOML file as it is; raises ValueError or OSError."""
    return read_file(path, _MAX_TOML_BYTES, links=True).decode("utf-8")


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file of at most 64 KiB.

    Raises:
        RecipeError: the file is larger, cannot be read, or is not TOML.
    """
    try:
        return parse_toml(toml_text(path))
    except ValueError as error:  # too large, TOML errors, no UTF-8, or integers of too many digits
        raise RecipeError(f"{path}: not valid TOML: {error}") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error


def overridden(document: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Set keys of ``document``, in place, as ``section.key=value`` texts say; the values are TOML or bare words.

    Raises:
        RecipeError: a text is no KEY=VALUE, or names a key inside a plain value.
    """
    for override in overrides:
        key, equals, text = override.partition("=")
        *sections, last = key.strip().split(".")
        if not equals or not last:
            raise RecipeError(f"--set '{override:.80}': expected KEY=VALUE, such as training.epochs=5")
        if len(sections) > _MAX_SECTIONS:
            raise RecipeError(f"--set '{override:.80}': expected a key of at most {_MAX_SECTIONS} sections")
        try:
            value = parse_toml(f"value = {text}")["value"]
        except ValueError:
            value = text.strip()  # a bare word is a string: --set latent.distribution=uniform
        target = document
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise RecipeError(f"--set '{override:.80}': '{section:.80}' is a value, not a section")
        target[last] = value
    return document


def build(section: type[T], document: Any, prefix: str = "") -> T:
    """A dataclass, and those nested in it, from nested plain values.

    Args:
        section: the dataclass to make.
        document: a value for each of its fields; those with a default may be missing.
        prefix: what errors put before a key, such as ``training.``.

    Raises:
        RecipeError: keys are unknown or missing, or values are invalid; it names all of them.
    """
    if not isinstance(document, dict):
        raise RecipeError(f"{prefix.rstrip('.')} = {document!r:.80}: expected a section [{prefix.rstrip('.')}]")
    assert dataclasses.is_dataclass(section)
    fields = {field.name: field for field in dataclasses.fields(section)}
    problems = [
        f"{prefix}{key:.80} = {document[key]!r:.80}: unknown key; expected {', '.join(fields)}"
        for key in document
        if key not in fields
    ][:_MAX_PROBLEMS]
    hints = typing.get_type_hints(section)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        try:
            if name in document or (_section_type(hints[name]) and field.default is dataclasses.MISSING):
                values[name] = _read(section, field, hints[name], document.get(name, {}), prefix)
            elif field.default is dataclasses.MISSING:
                raise RecipeError(f"{prefix}{name} is missing: expected {_expected(field, hints[name])}")
        except RecipeError as error:
            problems.append(str(error))
    if problems:
        raise RecipeError(_joined(problems))
    try:
        return section(**values)
    except (PrivacyError, RecipeError, ValueError) as error:  # also from a budget or a subject
        raise RecipeError(f"{prefix}{error}") from error


def _joined(problems: list[str]) -> str:
    """As many problems as make a line that can be read, and the number of others."""
    shown = [problem for i, problem in enumerate(problems) if sum(map(len, problems[: i + 1])) < _MAX_LINE or not i]
    left = len(problems) - len(shown)
    return "; ".join(shown) + (f"; and {left} more" if left else "")


def _read(section: type[Any], field: "dataclasses.Field[Any]", hint: Any, value: Any, prefix: str) -> Any:
    """The value of one field from a plain one; raises RecipeError."""
    if nested := _section_type(hint):
        return build(nested, value, f"{prefix}{field.name}.")
    value = _convert(hint, value)
    if issubclass(section, Section):  # others check all their values together
        try:
            _check(field, value)
        except RecipeError as error:
            raise RecipeError(f"{prefix}{error}") from error
    return value


def _section_type(hint: Any) -> type[Any] | None:
    """The dataclass that a field holds, perhaps beside None; None for a plain value."""
    kinds = typing.get_args(hint) or (hint,)
    return next((kind for kind in kinds if dataclasses.is_dataclass(kind) and isinstance(kind, type)), None)


def _convert(hint: Any, value: Any) -> Any:
    """TOML's lists become tuples, and an integer may stand for a float; all else is left for the check."""
    if isinstance(hint, types.GenericAlias) and isinstance(value, list):
        return tuple(value)
    if hint is float and type(value) is int and abs(value) <= 1 << 53:  # larger ones may overflow
        return float(value)
    return value


def _check(field: "dataclasses.Field[Any]", value: Any) -> None:
    hint: Any = field.type
    low, high = field.metadata.get("low"), field.metadata.get("high")
    choices = field.metadata.get("choices")
    if _section_type(hint):
        valid = isinstance(value, hint)  # and its values were checked when it was made
    elif isinstance(hint, types.GenericAlias) and low is not None and high is not None:
        valid = isinstance(value, tuple) and all(type(v) is int and low <= v <= high for v in value)
    else:
        valid = type(value) is hint
        if valid and low is not None and high is not None:
            valid = low <= value <= high  # also refuses NaN
        if valid and choices is not None:
            valid = value in choices
    if not valid:
        shown = list(value) if isinstance(value, tuple) else value
        raise RecipeError(f"{field.name} = {shown!r:.80}: expected {_expected(field, hint)}")


def _expected(field: "dataclasses.Field[Any]", hint: Any) -> str:
    if "choices" in field.metadata:
        return "one of " + ", ".join(field.metadata["choices"])
    if isinstance(hint, types.GenericAlias) and "low" not in field.metadata:
        return "a list of texts"
    if isinstance(hint, types.GenericAlias):
        return f"a list of integers from {field.metadata['low']} to {field.metadata['high']}"
    kind = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}.get(hint, "a section")
    if "low" in field.metadata:
        return f"{kind} from {field.metadata['low']} to {field.metadata['high']}"
    return kind
