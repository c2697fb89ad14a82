"""The reference of every key of a recipe, written from the code that checks them."""

import dataclasses
import typing
from typing import Any

from synthgen.model.recipe import METHODS, Recipe, builtin_recipes, load_recipe
from synthgen.privacy.accounting import MAX_DELTA, MAX_EPSILON, MIN_DELTA, MIN_EPSILON

_INTRODUCTION = """# Recipes

A recipe is a TOML file that says how a generator is built and trained. `synthgen recipes` lists those that come with
synthgen, `synthgen recipes show NAME` prints one. `synthgen train --recipe FILE` reads your own, and `--set KEY=VALUE`
overrides one key, as in `--set training.steps=1000`. Every key is checked, and an error names all that is wrong.

A recipe of your own need only say what is different:

```toml
extends = "private"   # a built-in recipe, or a file beside this one

[training]
steps = 6000
```

It takes the rest from the other recipe, and its `name` from its file unless it has one. A name has at most 64 letters,
digits, `.`, `_` and `-`, for it names folders. `description` is one printable line.

`synthgen recipes keys` writes this page from the code. A key without a default must be given."""

_TOP = {
    "conditional": "whether the generator is given a class; else its images have no labels",
    "epsilon": "the privacy budget of all looks at the real images together",
    "delta": "the probability that the guarantee leaves out; below 1 / the number of images",
}


def recipe_reference() -> str:
    """Every key with its type, range, default and meaning, and its values in the built-in recipes, as Markdown."""
    recipes = [load_recipe(name) for name in builtin_recipes()]
    parts = [_INTRODUCTION]
    for method, kind in METHODS.items():
        own = [recipe for recipe in recipes if recipe.method == method]
        first_line = (kind.__doc__ or "").splitlines()[0]
        parts.append(f'## method = "{method}"\n\n{first_line}')
        parts.append(_table(kind, own, "", ("conditional",)))
        for name, hint in typing.get_type_hints(kind).items():
            section = next((each for each in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(each)), None)
            if section is None or name == "subject" or (name == "privacy" and section is not hint):
                continue
            purpose = (section.__doc__ or "").splitlines()[0].replace("``", "`")
            parts.append(f"### [{name}]\n\n{purpose}")
            parts.append(_table(section, own, f"{name}.", [field.name for field in dataclasses.fields(section)]))
    return "\n\n".join(parts) + "\n"


def _table(section: Any, recipes: list[Recipe], prefix: str, keys: typing.Iterable[str]) -> str:
    fields = {field.name: field for field in dataclasses.fields(section)}
    heads = ["key", "value", "default", "meaning", *(f"`{recipe.name}`" for recipe in recipes)]
    rows = [
        [
            f"`{prefix}{key}`",
            _allowed(fields[key]),
            "" if fields[key].default is dataclasses.MISSING else f"`{_toml(fields[key].default)}`",
            fields[key].metadata.get("meaning") or _TOP[key],
            *(f"`{_toml(_value(recipe, prefix + key))}`" for recipe in recipes),
        ]
        for key in keys
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows])


def _allowed(field: "dataclasses.Field[Any]") -> str:
    if "choices" in field.metadata:
        return ", ".join(f"`{choice}`" for choice in field.metadata["choices"])
    kind = {int: "integer", float: "number", bool: "true or false", str: "text"}.get(field.type, "integers")  # type: ignore[arg-type]
    ranges = {"epsilon": (MIN_EPSILON, MAX_EPSILON), "delta": (MIN_DELTA, MAX_DELTA)}
    low, high = ranges.get(field.name, (field.metadata.get("low"), field.metadata.get("high")))
    return kind if low is None else f"{kind}, {low:,} to {high:,}"


def _value(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
