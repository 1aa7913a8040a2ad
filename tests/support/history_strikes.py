"""What befalls a whole cluster in the midst of a random history: sessions die, commits are lost, another goes on."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.cluster import Cluster
from tests.support.history_clusters import cut_off, promote, start, stop, upgrade, url_of, wait_for_standby
from tests.support.history_steps import Scenery

DATABASE = "app"
# What a history believes of its tables: lost with the commits that made it so.
_BELIEVED = ("detached", "home", "added", "labels", "members", "made")
# Before the snapshot of this number, or "" where nothing happens: the URL at which the history goes on.
Strike = Callable[[Scenery, int], str]


@dataclass(slots=True, kw_only=True)
class Crash:
    """Every second time the server dies without a word, and starts again."""

    cluster: Cluster
    count: int = 0

    def __call__(self, world: Scenery, number: int) -> str:
        if number % 2:
            return ""
        stop(self.cluster, "immediate")
        start(self.cluster)
        self.count += 1
        return url_of(self.cluster, DATABASE)


@dataclass(slots=True, kw_only=True)
class Failover:
    """The standby hears nothing from one snapshot on; later the primary dies and the standby takes its place.

    `plain`: only rows are lost, so that nothing but the timeline tells one server's tables from the other's.
    """

    primary: Cluster
    standby: Cluster
    plain: bool
    cut: int = 2
    fall: int = 4
    count: int = 0
    believed: dict[str, Any] = field(default_factory=dict)

    def __call__(self, world: Scenery, number: int) -> str:
        if number == self.cut:
            wait_for_standby(self.primary)
            cut_off(self.standby)
            world.plain = self.plain
            self.believed = deepcopy({name: getattr(world, name) for name in _BELIEVED})
        world.plain = world.plain and number <= self.fall
        if number != self.fall:
            return ""
        stop(self.primary, "immediate")
        promote(self.standby)
        for name, value in self.believed.items():
            setattr(world, name, value)
        self.count += 1
        return url_of(self.standby, DATABASE)


@dataclass(slots=True, kw_only=True)
class Upgrade:
    """pg_upgrade to a newer major: other programs, another cluster, the same xids and places."""

    old: Cluster
    programs: Path
    keep: Callable[[Cluster], Cluster]
    at: int = 4
    count: int = 0

    def __call__(self, world: Scenery, number: int) -> str:
        if number != self.at:
            return ""
        world.sessions.end_all()
        world.sessions.alone("DROP TABLE names")  # pg_upgrade refuses reg* columns
        world.sessions.close()
        new = self.keep(upgrade(self.old, self.programs, {"max_prepared_transactions": "20"}))
        self.count += 1
        return url_of(new, DATABASE)
