"""``synthgen recipes``: list them, print one, and explain every key."""

from typing import Annotated

import typer

from synthgen.cli.console import print_line, say

recipes_app = typer.Typer(
    help="List the recipes that come with synthgen, print one, or explain every key.",
    epilog="Examples:  synthgen recipes   |   synthgen recipes show private > own.toml   |   synthgen recipes keys",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@recipes_app.callback()
def listed(context: typer.Context) -> None:
    """``synthgen recipes``."""
    if context.invoked_subcommand is not None:
        return
    from synthgen.model.recipe import builtin_recipes, load_recipe

    for name in builtin_recipes():
        print_line(f"{name:<14}{load_recipe(name).description}")


@recipes_app.command(
    help="Print the TOML of a recipe.",
    epilog="Examples:  synthgen recipes show private   |   synthgen recipes show private > own.toml",
)
def show(recipe: Annotated[str, typer.Argument(help="Recipe name or TOML file.")]) -> None:
    """``synthgen recipes show``."""
    from synthgen.model.recipe import recipe_text

    for line in recipe_text(recipe).splitlines():
        print_line(line)
    say('for a recipe of your own, extends = "private" and the keys that differ are enough')


@recipes_app.command(
    help="Explain every key of a recipe: type, range, default, meaning, and the built-in values (Markdown).",
    epilog="Example:  synthgen recipes keys",
)
def keys() -> None:
    """``synthgen recipes keys``."""
    from synthgen.model.reference import recipe_reference

    for line in recipe_reference().splitlines():
        print_line(line)
