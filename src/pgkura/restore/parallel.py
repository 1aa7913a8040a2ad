"""What follows the rows, in parallel along the dependency graph: indexes, constraints, triggers, policies."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from pgkura.catalog.toc import Entry
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.postgres.session import Session

# These lock their tables against everything that works on them; pg_restore keeps them apart too (has_lock_conflicts).
_EXCLUSIVE = frozenset(
    {"CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "RULE", "TRIGGER", "ROW SECURITY", "POLICY", "DEFAULT"}
)
TICK_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An entry, what must be done before it, the tables it works on, and those of them that it locks."""

    entry: Entry
    deps: frozenset[int]
    uses: frozenset[int]
    locks: frozenset[int]


def graph(entries: Sequence[Entry], tables: frozenset[int]) -> list[Node]:
    """Nodes in archive order. Dependencies on entries that are not in `entries` are met already. Pure."""
    ids = {e.dump_id for e in entries}
    nodes = []
    for entry in entries:
        deps = frozenset(d for d in entry.deps if d in ids)
        uses = tables.intersection(entry.deps)
        locks = uses if entry.desc in _EXCLUSIVE else frozenset[int]()
        nodes.append(Node(entry=entry, deps=deps, uses=uses, locks=locks))
    return nodes


@dataclass(slots=True)
class Schedule:
    """Which nodes may run now. Pure but for its own state."""

    waiting: list[Node]
    unfinished: set[int] = field(default_factory=set)
    running: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.unfinished = {n.entry.dump_id for n in self.waiting}

    def take(self) -> Node | None:
        """The first node whose dependencies are done and that neither waits for a running one nor holds it up."""
        for place, node in enumerate(self.waiting):
            if not node.deps & self.unfinished and not any(_conflict(node, other) for other in self.running):
                self.running.append(node)
                return self.waiting.pop(place)
        return None

    def done(self, node: Node) -> None:
        """A node has ended, well or not."""
        self.unfinished.discard(node.entry.dump_id)
        self.running.remove(node)


def _conflict(one: Node, other: Node) -> bool:
    return bool(one.locks & other.uses or other.locks & one.uses)


def run_parallel(
    nodes: Sequence[Node],
    execute: Callable[[Session, Entry], None],
    open_session: Callable[[], Session],
    *,
    parallel: int,
    stop: Stop,
    progress: Progress,
) -> None:
    """Run every node once. `execute` turns the server's refusals into findings itself."""
    schedule = Schedule(list(nodes))
    sessions: list[Session] = []
    idle: list[Session] = []
    running: dict[Future[None], tuple[Node, Session]] = {}
    with ThreadPoolExecutor(parallel, thread_name_prefix="pgkura-build") as pool:
        try:
            while schedule.waiting or running:
                while len(running) < parallel and (node := schedule.take()) is not None:
                    if not idle:
                        sessions.append(open_session())
                        idle.append(sessions[-1])
                    session = idle.pop()
                    running[pool.submit(execute, session, node.entry)] = (node, session)
                if not running:
                    # A cycle can only come from a damaged archive: run the rest in its order rather than never.
                    schedule.unfinished.clear()
                    continue
                done, _ = wait(running, timeout=TICK_SECONDS, return_when=FIRST_COMPLETED)
                stop.check()
                for future in done:
                    node, session = running.pop(future)
                    idle.append(session)
                    schedule.done(node)
                    progress.advance(1)
                    future.result()
        except BaseException:
            stop.request()
            for _, session in running.values():
                session.cancel()
            raise
        finally:
            wait(running)
            for session in sessions:
                session.close()
