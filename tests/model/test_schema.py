import dataclasses
from dataclasses import dataclass

import pytest

from synthgen.errors import RecipeError
from synthgen.model.schema import Section, between, build, one_of, overridden, read_toml


@dataclass(frozen=True, kw_only=True)
class Inner(Section):
    size: int = between("of it", 1, 9)
    rate: float = between("of it", 0.0, 1.0, default=0.5)


@dataclass(frozen=True, kw_only=True)
class Outer(Section):
    kind: str = one_of("of it", "round", "square")
    widths: tuple[int, ...] = between("of each", 1, 9, default=(1, 2))
    inner: Inner
    perhaps: Inner | None = None


def test_a_document_becomes_nested_values_with_defaults():
    built = build(Outer, {"kind": "round", "widths": [3], "inner": {"size": 2, "rate": 1}})
    assert built == Outer(kind="round", widths=(3,), inner=Inner(size=2, rate=1.0))
    assert type(built.inner.rate) is float


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "kind is missing: expected one of round, square"),
        ({"kind": "oval", "inner": {"size": 1}}, "kind = 'oval': expected one of round, square"),
        ({"kind": "round"}, "inner.size is missing: expected an integer from 1 to 9"),
        ({"kind": "round", "inner": 3}, "inner = 3: expected a section [inner]"),
        ({"kind": "round", "inner": {"size": True}}, "inner.size = True: expected an integer from 1 to 9"),
        ({"kind": "round", "inner": {"size": 1, "rate": 10**400}}, "inner.rate = 1000"),
        ({"kind": "round", "inner": {"size": 1}, "perhaps": {"size": 0}}, "perhaps.size = 0: expected an integer"),
        ({"kind": "round", "inner": {"size": 1}, "other": 1}, "other = 1: unknown key; expected kind, widths, inner"),
        ({"kind": "round", "inner": {"size": 1}, "widths": [0]}, "widths = [0]: expected a list of integers from 1"),
        (None, "expected a section"),
    ],
)
def test_what_does_not_fit_is_named(document: object, words: str):
    with pytest.raises(RecipeError) as refusal:
        build(Outer, document)
    assert words in str(refusal.value)


def test_values_are_checked_however_they_are_made():
    outer = Outer(kind="round", inner=Inner(size=1))
    with pytest.raises(RecipeError, match="size = 10: expected an integer from 1 to 9"):
        dataclasses.replace(outer.inner, size=10)
    with pytest.raises(RecipeError, match="inner = None: expected a section"):
        dataclasses.replace(outer, inner=None)


def test_overrides_set_nested_keys_in_their_order():
    found = overridden({"a": {"b": 1}}, ["a.b=2", "a.c = word", "d.e=[1, 2]", "a.b=3.5"])
    assert found == {"a": {"b": 3.5, "c": "word"}, "d": {"e": [1, 2]}}


@pytest.mark.parametrize("override", ["nonsense", "=1", "a.=1"])
def test_an_override_without_key_and_value_is_refused(override: str):
    with pytest.raises(RecipeError, match="expected KEY=VALUE"):
        overridden({}, [override])


def test_a_file_that_is_no_recipe_is_refused_unread(tmp_path):
    path = tmp_path / "huge.toml"
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(RecipeError, match="1,048,577 bytes; expected at most 65,536"):
        read_toml(path)
    path.write_text(f"n = {'9' * 5_000}")
    with pytest.raises(RecipeError, match="not valid TOML"):
        read_toml(path)
    with pytest.raises(RecipeError, match="cannot be read"):
        read_toml(tmp_path / "missing.toml")
