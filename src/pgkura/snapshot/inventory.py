"""The inventory of the whole catalog as a file: one JSON object per line, written as it is read."""

from concurrent.futures import ThreadPoolExecutor, wait
from typing import IO, Self

from pgkura.postgres.inventory import CLASSES, read_inventory_lines
from pgkura.postgres.patience import Patience, patient
from pgkura.postgres.session import Session
from pgkura.snapshot.attempt import Desk, awaited, giving_way
from pgkura.snapshot.conductor import TICK_SECONDS, Moment


class Listing:
    """The inventory in the making, in the snapshot, beside the reading of rows. Leaving early ends it."""

    def __init__(self, desk: Desk, reader: Session, moment: Moment) -> None:
        """`reader` is in no transaction, and used by nobody else until the end."""
        self._desk = desk
        self._reader = reader
        self._moment = moment
        self._file = desk.scratch()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pgkura-inventory")
        self._future = self._pool.submit(self._run)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # A cancel that comes between two statements cancels none.
        while kind is not None and not self._future.done():
            self._reader.cancel()
            wait([self._future], TICK_SECONDS)
        self._pool.shutdown(wait=True)

    def check(self) -> None:
        """Raises what `file` would raise by now."""
        if self._future.done():
            self.file()

    def file(self) -> IO[bytes]:
        """When it is whole. Raises GaveWay when the reader had to be ended, SqlError."""
        return awaited(self._desk, self._future)

    def _run(self) -> IO[bytes]:
        with giving_way(self._desk):
            self._reader.adopt(self._moment.id)
            with patient(self._reader, self._desk.options.queue_wait_ms / 1000) as patience:
                _write(self._reader, self._file, patience)
            self._reader.commit()
        return self._file


def _write(session: Session, file: IO[bytes], patience: Patience) -> None:
    """Read in the session's transaction; memory stays bounded whatever the number of objects."""
    for cls in CLASSES:
        place = file.tell()

        def write(cls: str = cls, place: int = place) -> None:
            file.seek(place)
            file.truncate()
            for lines in read_inventory_lines(session, (cls,)):
                file.write(lines)

        patience.again(write)
