"""``synthgen account``."""

import json
from typing import Annotated

import typer

from synthgen.cli.console import print_line


def account(
    sources: Annotated[list[str], typer.Argument(help="Checkpoints (names or folders) and exported sets.")],
    delta: Annotated[
        float | None, typer.Option(help="At which delta to state epsilon. [default: the largest of the claims]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """``synthgen account``."""
    from synthgen.sets.account import account as account_

    found = account_(sources, delta)
    lines = json.dumps(found.to_dict(), indent=2).split("\n") if as_json else found.summary()
    for line in lines:
        print_line(line)
