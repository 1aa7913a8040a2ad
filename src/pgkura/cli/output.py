"""How results and errors leave the program: one JSON object, or tables and sentences."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pgkura.core.errors import EXIT_INCOMPLETE, EXIT_OK, PgkuraError
from pgkura.core.outcome import Finding, FindingClass, Result

if TYPE_CHECKING:
    from rich.console import Console

_MEANING = {
    FindingClass.LOST: "not as it was",
    FindingClass.DENIED: "rights forbid it",
    FindingClass.BY_DESIGN: "differs by a stated rule",
    FindingClass.MANAGED: "the platform's own",
}
_SHOWN_PER_CLASS = 12


def out() -> "Console":
    """The console for results (stdout), as wide as the terminal."""
    from rich.console import Console  # takes a while to load: not where all is said in JSON

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, nothing else: spread out for people, one line for programs that read by lines."""
    indent = 2 if sys.stdout.isatty() else None
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=indent) + "\n")
    sys.stdout.flush()


def print_error(error: PgkuraError, *, as_json: bool) -> None:
    """The sentence on stderr; with `--json` also one object on stdout."""
    print(f"error: {error}", file=sys.stderr)
    if as_json:
        print_json({"result": "failed", "error": error.as_json()})


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table that folds its long cells instead of leaving the terminal."""
    from rich.table import Table

    shape = Table(title=title, title_justify="left", title_style="bold", header_style="bold", pad_edge=False)
    for column in columns:
        shape.add_column(column, overflow="fold", justify="right" if column.endswith("#") else "left")
    for row in rows:
        shape.add_row(*(str(cell) for cell in row))
    console = out()
    if not console.is_terminal:
        console.width = 160
    console.print(shape)


def warnings(lines: Iterable[str]) -> None:
    """Sentences on stderr that change no result."""
    for line in lines:
        print(f"warning: {line}", file=sys.stderr)


def findings(items: Sequence[Finding], accepted: Sequence[str] = ()) -> None:
    """What is not exactly as it was, worst first, long lists cut with a count."""
    console = out()
    for cls in (FindingClass.LOST, FindingClass.DENIED, FindingClass.BY_DESIGN, FindingClass.MANAGED):
        group = [f for f in items if f.cls is cls]
        if not group:
            continue
        style = "red" if cls is FindingClass.LOST else "yellow" if cls is FindingClass.DENIED else "dim"
        console.print(f"{cls.value} ({_MEANING[cls]}): {len(group)}", style=style, markup=False)
        for finding in group[:_SHOWN_PER_CLASS]:
            waived = "  [accepted]" if finding.object in accepted else ""
            console.print(f"  {finding.object}: {finding.reason}{waived}", markup=False)
        if len(group) > _SHOWN_PER_CLASS:
            console.print(f"  … and {len(group) - _SHOWN_PER_CLASS} more (all of them with --json)", markup=False)


def unused_waivers(names: Sequence[str]) -> None:
    """A note for each `--accept` that waived nothing."""
    for name in names:
        out().print(f"note: --accept {name!r} waived nothing: no denied object has exactly this name", markup=False)


def exit_code(result: Result) -> int:
    """0 for ok, 3 for incomplete."""
    return EXIT_OK if result is Result.OK else EXIT_INCOMPLETE
