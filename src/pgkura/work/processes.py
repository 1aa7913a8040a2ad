"""Workers as processes: spawned, since a forked one would share our connections."""

from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any


def spawn_pool(
    count: int, start: Callable[[dict[str, str]], None], secrets: dict[str, str]
) -> tuple[Executor, Callable[[], None]]:
    """A pool whose workers run `start(secrets)` first, and what ends those that run."""
    children = _Spawned()
    context: Any = children
    pool = ProcessPoolExecutor(max_workers=count, mp_context=context, initializer=start, initargs=(secrets,))
    return pool, children.terminate


class _Spawned:
    """The spawn context, which remembers what was started through it: other runs of this process have theirs."""

    def __init__(self) -> None:
        self._context = get_context("spawn")
        self._children: list[BaseProcess] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def Process(self, *args: Any, **kwargs: Any) -> BaseProcess:  # noqa: N802
        """Called by the pool for each worker."""
        child = self._context.Process(*args, **kwargs)
        self._children.append(child)
        return child

    def terminate(self) -> None:
        """End those that run."""
        for child in self._children:
            if child.is_alive():
                child.terminate()
