"""``plan``: what a run of training will do and what it will cost, whatever its recipe."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from synthgen.errors import UsageError
from synthgen.model.recipe import (
    AdversarialRecipe,
    PrivateAdversarialRecipe,
    Recipe,
    StatisticsRecipe,
    load_recipe,
    with_budget,
    with_overrides,
)
from synthgen.training.adversarial import plan_training
from synthgen.training.dpgan import plan_private_training
from synthgen.training.folder import read_header
from synthgen.training.matching.plan import plan_matching, plan_matching_anew, plan_on_release
from synthgen.training.run import Plan, expect_seed
from synthgen.training.strategy import Strategy, expect_shareable
from synthgen.training.tuning import grid_of, plan_tuning

DEFAULT_RECIPE = "private"


def plan(
    recipe: Recipe | str | None = None,
    *,
    overrides: Sequence[str] = (),
    epsilon: float | None = None,
    delta: float | None = None,
    data: Path | None = None,
    seed: int | None = None,
    release: str | Path | None = None,
    resume: Path | None = None,
    strategy: Strategy | None = None,
    spend_log: bool = True,
    tune: int | None = None,
    grid: Sequence[str] = (),
) -> Plan:
    """Load and check everything a run needs, and calibrate the noise of a private one to its budget.

    Args:
        recipe: what to train: a recipe, or its name or TOML file; by default ``private``.
        overrides: ``section.key=value`` changes of the recipe.
        epsilon: budget of a private recipe in place of its own; ``delta`` likewise.
        data: folder of the real images; by default see ``real_images.find_data``.
        seed: 0 to 2^32 - 1; by default 0, or that of the run to resume.
        release: train anew on what a finished private run released: its folder, or the name of a built-in checkpoint.
            The recipe is that run's, with ``overrides``; no image is used, and no budget spent.
        resume: the folder of an interrupted run, whose recipe and release are taken where neither is given here.
        strategy: what ``train`` will be given; refused at once where the recipe is private.
        spend_log: of a private run: whether what it charges to these images is noted outside its folder, too.
        tune: of a private recipe: choose the best of a random number of runs, so many on average; the budget is that of
            all of them. See ``training.tuning``.
        grid: with ``tune``: ``key=value,value,…`` texts; the settings to choose among are all combinations.

    Returns:
        What ``train`` takes; its ``describe()`` gives lines for people.

    Raises:
        UsageError: the seed is out of range, there are too few images, or options do not go together.
        RecipeError: the recipe or an override is invalid, or changes what was released.
        DataError: the real images are missing or malformed.
        PrivacyError: the budget is out of range; or the ledger or release of an earlier run is spoilt or was begun
            with another budget.
        CheckpointError: the run named by ``release`` has no checkpoint.
        TrainingError: the state to resume from is spoilt.
    """
    if release is not None:
        if any(value is not None for value in (recipe, data, epsilon, delta)):
            raise UsageError(f"--release {release}: goes without --recipe, --data, --epsilon and --delta")
        if tune is not None or grid:
            raise UsageError(f"--release {release}: looks at no image, so that choosing costs nothing without --tune")
        planned = plan_matching_anew(release, overrides, seed or 0)
        expect_shareable(planned.recipe, strategy)
        return planned
    anew = False
    if resume is not None and recipe is None and not overrides:
        header = read_header(resume)
        recipe, anew = Recipe.from_dict(header["recipe"]), bool(header.get("anew"))
        seed = int(header["seed"]) if seed is None else seed
        if tune is None and not grid:
            tune, grid = header.get("tune"), grid_of(header)
    elif not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe or DEFAULT_RECIPE, overrides)
    elif overrides:
        recipe = with_overrides(recipe, overrides)
    recipe, seed = with_budget(recipe, epsilon, delta), seed or 0
    expect_shareable(recipe, strategy)
    expect_seed(seed)
    if tune is not None:
        return plan_tuning(recipe, tune, grid, data, seed, spend_log=spend_log)
    if grid:
        raise UsageError(f"--grid '{grid[0]:.80}': goes with --tune N, the number of runs on average")
    match recipe:
        case StatisticsRecipe() if anew and resume is not None:
            return plan_on_release(resume, recipe, seed)
        case StatisticsRecipe():
            return replace(plan_matching(recipe, data, seed), spend_log=spend_log)
        case PrivateAdversarialRecipe():
            return replace(plan_private_training(recipe, data, seed), spend_log=spend_log)
        case AdversarialRecipe():
            return plan_training(recipe, data, seed)
    raise UsageError(f"recipe '{recipe.name}': nothing trains by method '{recipe.method}'")
