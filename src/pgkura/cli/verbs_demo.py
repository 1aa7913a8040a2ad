"""demo: the main job on an embedded server."""

import os
from typing import Annotated

import typer

from pgkura.cli import options, output
from pgkura.cli.progress import shown
from pgkura.operations.demo.run import run_demo


def demo(
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="Reservations to make [env: DEMO_ROWS]")] = None,
    keep: Annotated[str, typer.Option("--keep", help="Folder for the repository and keys; must not exist.")] = "",
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Make a learning platform on an embedded PostgreSQL, back it up, lose it, get it back, prove it."""
    with shown(quiet=quiet or as_json) as progress:
        told = run_demo(rows or _demo_rows(), keep, progress)
    if as_json:
        output.print_json(told.as_json())
    else:
        out = output.out()
        for line in told.story():
            out.print(line, markup=False)
    raise typer.Exit(output.exit_code(told.result))


def _demo_rows() -> int:
    text = os.environ.get("DEMO_ROWS") or "20000"
    if not text.isdigit() or int(text) < 1:
        raise typer.BadParameter(f"DEMO_ROWS={text!r} is not a positive number")
    return int(text)
