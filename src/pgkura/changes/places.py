"""The segments of a chain by their place, although only bundles' names are known before one looks into them."""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import accumulate
from typing import Generic, TypeVar, overload

from pgkura.changes.spans import segments_in
from pgkura.repository.bundles import BundleName, Run
from pgkura.repository.changes import SegmentName

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """The last few values that were used."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """None for one that is not kept."""
        found = self._kept.pop(key, None)
        if found is not None:
            self._kept[key] = found
        return found

    def put(self, key: K, value: V) -> V:
        """The value; the one that was not used for longest goes."""
        if len(self._kept) >= self._most:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = value
        return value


class Places(Sequence[SegmentName]):
    """Names of segments in order. `inside`: those of a bundle, which it costs a request to know."""

    def __init__(self, runs: Sequence[Run], inside: Callable[[BundleName], Sequence[SegmentName]]) -> None:
        self.runs = runs
        self._inside = inside
        self._until = list(accumulate(map(segments_in, runs)))

    def __len__(self) -> int:
        return self._until[-1] if self._until else 0

    def locate(self, place: int) -> tuple[Run, int]:
        """The file that a segment lies in, and its place there. Raises IndexError."""
        if not 0 <= place < len(self):
            raise IndexError(place)
        number = bisect_right(self._until, place)
        before = self._until[number - 1] if number else 0
        return self.runs[number], place - before

    @overload
    def __getitem__(self, place: int) -> SegmentName: ...

    @overload
    def __getitem__(self, place: slice) -> list[SegmentName]: ...

    def __getitem__(self, place: int | slice) -> SegmentName | list[SegmentName]:
        """One name, or those of a slice."""
        if isinstance(place, slice):
            return [self[n] for n in range(*place.indices(len(self)))]
        run, number = self.locate(place + len(self) if place < 0 else place)
        return self._inside(run)[number] if isinstance(run, BundleName) else run

    def __iter__(self) -> Iterator[SegmentName]:
        for run in self.runs:
            if isinstance(run, BundleName):
                yield from self._inside(run)
            else:
                yield run
