"""Bars for people on a terminal. Loaded when there is one: the library takes a while, and hourly runs have none."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as RichProgress,
)
from rich.text import Text

from pgkura.cli.progress import amount


class _Rate(ProgressColumn):
    """Amount done, of how much, and how fast."""

    def render(self, task: Task) -> Text:
        """`1.2 GB of 3.9 GB  210 MB/s`."""
        unit = str(task.fields.get("unit", ""))
        done = amount(task.completed, unit)
        whole = f" of {amount(task.total, unit)}" if task.total else ""
        rate = f"  {amount(task.speed, unit)}/s" if task.speed else ""
        return Text(done + whole + rate if task.completed or task.total else "", style="cyan")


class Terminal:
    """Bars on a terminal; earlier stages stay visible with their time."""

    def __init__(self, rich: RichProgress) -> None:
        self._rich = rich
        self._task: TaskID | None = None

    def stage(self, name: str, *, total: int | None = None, unit: str = "") -> None:
        """Finish the running bar and begin another."""
        self.finish()
        self._task = self._rich.add_task(name, total=total or None, unit=unit)

    def advance(self, amount: int) -> None:
        """Move the running bar."""
        if self._task is not None:
            self._rich.advance(self._task, amount)

    def note(self, text: str) -> None:
        """A line above the bars."""
        self._rich.console.print(text, style="yellow", markup=False, highlight=False)

    def finish(self) -> None:
        """Mark the running bar as whole."""
        if self._task is not None:
            task = self._rich.tasks[self._rich.task_ids.index(self._task)]
            self._rich.update(self._task, total=max(task.completed, 1), completed=max(task.completed, 1))


@contextmanager
def bars() -> Iterator[Terminal]:
    """On stderr, closed properly on every way out."""
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=Console(stderr=True), refresh_per_second=8) as rich:
        terminal = Terminal(rich)
        yield terminal
        terminal.finish()
