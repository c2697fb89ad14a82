"""The settings that a tuning chooses among: every combination of a grid, as private runs that all charge the same.

Noise, sampling and steps are the same for all, so that the price of a run does not depend on which candidate it takes.
A setting of a recipe on released statistics that looks at no real image is refused: to change it costs nothing at all.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from synthgen.errors import RecipeError, UsageError
from synthgen.model.recipe import PrivateAdversarialRecipe, StatisticsRecipe, with_overrides
from synthgen.privacy.accounting import Mechanism
from synthgen.training.dpgan import DpganPlan
from synthgen.training.matching.plan import with_settings
from synthgen.training.matching.run import MatchingPlan
from synthgen.training.private import PrivatePlan

PrivateRecipe = PrivateAdversarialRecipe | StatisticsRecipe
Grid = tuple[tuple[str, tuple[str, ...]], ...]  # each key with its values, as texts

MAX_CANDIDATES = 1_000
_NOT_TUNED = ("method", "name", "description", "conditional", "data", "privacy")
_FREE = ("latent", "generator", "training")  # of a recipe on released statistics


def parse_grid(texts: Sequence[str]) -> Grid:
    """Keys and values of ``key=value,value`` texts; commas within brackets separate nothing.

    Raises:
        UsageError: there is none, one is of another form, or a key is named twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        key, _, listed = text.partition("=")
        values, depth = [""], 0
        for letter in listed:
            depth += (letter == "[") - (letter == "]")
            if letter == "," and not depth:
                values.append("")
            else:
                values[-1] += letter
        key, stripped = key.strip(), tuple(value.strip() for value in values)
        if not key or not all(stripped) or key in found:
            raise UsageError(f"--grid '{text:.80}': expected each key once, as KEY=VALUE,VALUE,…")
        found[key] = stripped
    if not found:
        raise UsageError("--tune: expected at least one --grid KEY=VALUE,VALUE,… to choose from")
    return tuple(found.items())


def settings_of(grid: Grid) -> tuple[tuple[str, ...], ...]:
    """What each candidate changes, as ``key=value`` texts.

    Raises:
        UsageError: there are fewer than 2 candidates or more than 1,000.
    """
    count = 1
    for _, values in grid:
        count *= len(values)
    if not 2 <= count <= MAX_CANDIDATES:
        raise UsageError(f"--grid: makes {count:,} candidates; expected 2 to {MAX_CANDIDATES:,}")
    keys = [key for key, _ in grid]
    combinations = itertools.product(*(values for _, values in grid))
    return tuple(tuple(f"{key}={value}" for key, value in zip(keys, chosen, strict=True)) for chosen in combinations)


def changed_recipes(recipe: PrivateRecipe, settings: Sequence[Sequence[str]]) -> list[PrivateRecipe]:
    """The recipe of each candidate.

    Raises:
        RecipeError: a key or value is invalid, may not be tuned, or need not be.
        UsageError: two are the same.
    """
    recipes = [_changed(recipe, changes) for changes in settings]
    if len({each.sha256 for each in recipes}) < len(recipes):
        raise UsageError("--grid: two candidates are the same; name every value once")
    return recipes


def candidate_plan(run: PrivatePlan, recipe: PrivateRecipe, changes: Sequence[str]) -> PrivatePlan:
    """The plan of a candidate at the same noise as ``run``; it keeps no spend log, for the tuning does.

    Raises:
        RecipeError: another price would be charged.
    """
    plan: PrivatePlan
    if isinstance(run, MatchingPlan) and isinstance(recipe, StatisticsRecipe):
        plan = with_settings(run, recipe)
    else:
        assert isinstance(run, DpganPlan)
        assert isinstance(recipe, PrivateAdversarialRecipe)
        plan = replace(run, recipe=recipe)
    if _priced(plan) != _priced(run):
        raise RecipeError(
            f"--grid {' '.join(changes)}: changes what is charged (noise, sampling or steps), and candidates must all "
            "cost the same; set it for all of them, with --set"
        )
    return replace(plan, spend_log=False)


def _changed(recipe: PrivateRecipe, changes: Sequence[str]) -> PrivateRecipe:
    for change in changes:
        key = change.partition("=")[0]
        section = key.partition(".")[0]
        if section in _NOT_TUNED:
            raise RecipeError(f"--grid {key}: what is protected, and how much may be spent, is not tuned; use --set")
        if isinstance(recipe, StatisticsRecipe) and section in _FREE:
            raise RecipeError(
                f"--grid {key}: looks at no real image, so that choosing it costs nothing: train once, then as often "
                f"as you like with synthgen train --release RUN --set {key}=…"
            )
    changed = with_overrides(recipe, changes)
    assert isinstance(changed, PrivateAdversarialRecipe | StatisticsRecipe)  # the method is the same
    return changed


def _priced(plan: PrivatePlan) -> list[Mechanism]:
    """The mechanisms, but for the sensitivity: only the noise in units of it has a price."""
    return [replace(mechanism, l2_sensitivity=1.0) for mechanism in plan.mechanisms]
