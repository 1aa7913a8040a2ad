"""Workers of a Dask cluster as a `concurrent.futures.Executor`. The only module that knows `distributed`.

Dask sends a unit again when its worker ends without a word; units are made to bear that. What it must not do is
decided here: speak in clear, start with workers that cannot do the work, or wait for ever for workers that are gone.
"""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, InvalidStateError
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import distributed

from pgkura import __version__
from pgkura.app.executors import Tls, is_loopback
from pgkura.core.access import Access
from pgkura.core.errors import PgkuraError, UsageError
from pgkura.work.pools import WorkerDied
from pgkura.work.station import examine

# Without type annotations; used through one name so that only these lines know.
_DASK: Final[Any] = distributed
CONNECT_SECONDS = 15
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 2.0
TELL_SECONDS = 5.0
_INSTALL = "scheduler and workers need the same pgkura as this machine (pip install 'pgkura[dask]')"


class ClusterError(PgkuraError):
    """The Dask cluster could not be reached, or is not fit for the work."""


@contextmanager
def open_cluster(scheduler: str, tls: Tls | None, access: Access) -> Iterator[Executor]:
    """An executor on this cluster. Raises ClusterError, UsageError before any unit is sent."""
    client = dial(scheduler, tls)
    try:
        _ask(client, access)
        with DaskExecutor(client) as executor:
            yield executor
    finally:
        client.close(timeout=5)


def dial(scheduler: str, tls: Tls | None) -> Any:
    """A client of the scheduler; it must be closed."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what happened is said by our own errors
    security = None
    if tls is not None:
        security = _DASK.Security(
            tls_ca_file=tls.ca, tls_client_cert=tls.cert, tls_client_key=tls.key, require_encryption=True
        )
    try:
        return _DASK.Client(scheduler, security=security, timeout=CONNECT_SECONDS, set_as_default=False, name="pgkura")
    except (OSError, TimeoutError) as error:
        raise ClusterError(
            f"cannot reach the Dask scheduler at {scheduler}",
            detail=" ".join(str(error).split())[:300],
            hint="is it running, does it listen there, and are all certificates of the same authority?",
        ) from error


def _ask(client: Any, access: Access) -> None:
    """Every worker opens what the units will need, before the first lock is taken anywhere."""
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError as error:
        raise ClusterError("the Dask scheduler has no worker", hint="start some: `dask worker …`") from error
    for address in client.nthreads():
        _refuse_clear(address)
    try:
        answers: dict[str, object] = client.run(examine, access, on_error="return")
        answers["the scheduler"] = client.run_on_scheduler(examine, None)
    except Exception as error:  # whatever a foreign installation raises while it imports us
        raise ClusterError(
            "the cluster cannot run pgkura", detail=f"{type(error).__name__}: {error}", hint=_INSTALL
        ) from error
    for where, answer in answers.items():
        if isinstance(answer, UsageError):
            raise UsageError(f"worker {where}: {answer.msg}", detail=answer.detail, hint=answer.hint)
        if isinstance(answer, PgkuraError):
            raise ClusterError(f"worker {where}: {answer.msg}", detail=answer.detail, hint=answer.hint)
        if answer != __version__:
            raise ClusterError(f"{where} runs pgkura {answer}, not {__version__}", hint=_INSTALL)


def _refuse_clear(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme != "tls" and not is_loopback(parts.hostname or ""):
        raise UsageError(
            f"the worker at {address} speaks without TLS",
            detail="whoever is in between could send it other work, with its keys and passwords at hand",
            hint="start scheduler and workers with --protocol tls and --tls-ca-file, --tls-cert, --tls-key",
        )


class DaskExecutor(Executor):
    """Units as Dask tasks. Ends nothing but its own tasks when it is left."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._lock = Lock()
        self._running: dict[Future[Any], Any] = {}
        self._left = Event()
        self._watch = Thread(target=self._look_after_workers, name="pgkura-dask", daemon=True)
        self._watch.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """`fn(*args)` on a worker; the last argument is the unit."""
        task = self._client.submit(fn, *args, **kwargs, pure=False, key=f"pgkura-{uuid4().hex}")
        title = str(getattr(args[-1], "title", "a unit")) if args else "a unit"
        future: Future[Any] = Future()
        with self._lock:
            self._running[future] = task
        future.add_done_callback(self._forget)
        task.add_done_callback(lambda done: _settle(future, done, title))
        return future

    def everywhere(self, function: Callable[..., Any], /, *args: Any) -> None:
        """In each worker's process, beside its units; waits for at most TELL_SECONDS."""

        def tell() -> None:
            # Whoever is not reached ends his unit, which counts for nothing.
            with suppress(Exception):
                self._client.run(function, *args, on_error="ignore")

        telling = Thread(target=tell, name="pgkura-dask-tell", daemon=True)
        telling.start()
        telling.join(TELL_SECONDS)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Give up what is still on its way."""
        self._left.set()
        with self._lock:
            running = tuple(self._running)
        for future in running:
            future.cancel()
        self._watch.join(timeout=LOOK_SECONDS + 5)

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            task = self._running.pop(future, None)
        if task is not None and future.cancelled():
            task.cancel(force=True)

    def _look_after_workers(self) -> None:
        """Without a worker tasks wait for ever, a snapshot with them; and one that joins late may speak in clear."""
        seen = time.monotonic()
        while not self._left.wait(LOOK_SECONDS):
            try:
                for address in self._client.nthreads():
                    _refuse_clear(address)
                    seen = time.monotonic()
            except UsageError as error:
                self._fail_all(error)
                return
            except Exception:  # noqa: BLE001, S110 - a scheduler that does not answer has no workers for us
                pass
            if time.monotonic() - seen > PATIENCE_SECONDS:
                self._fail_all(
                    ClusterError(
                        f"no Dask worker is left for {PATIENCE_SECONDS:.0f} seconds",
                        hint="start workers and run it again",
                    )
                )
                return

    def _fail_all(self, error: PgkuraError) -> None:
        with self._lock:
            running = tuple(self._running)
        for future in running:
            _set(future, error=error)


def _settle(future: Future[Any], task: Any, title: str) -> None:
    """The task's outcome as the future's, in our own words where Dask itself gave up."""
    if future.cancelled():
        return
    try:
        _set(future, value=task.result())
    except _DASK.KilledWorker as error:
        died = WorkerDied(
            f"{error.allowed_failures + 1} workers died one after another while working on {title}",
            detail=f"the last was {getattr(error.last_worker, 'address', 'unknown')}; killed, or out of memory",
            hint="give the workers more memory, or look at their logs; nothing of this run counts",
        )
        _set(future, error=died)
    except CancelledError as error:
        lost = ClusterError(
            "the Dask scheduler lost our work", detail=str(error)[:300], hint="was it restarted? run it again"
        )
        _set(future, error=lost)
    except Exception as error:  # noqa: BLE001 - the unit's own error, raised again where the result is awaited
        _set(future, error=error)


def _set(future: Future[Any], *, value: Any = None, error: Exception | None = None) -> None:
    try:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
    except InvalidStateError:
        return  # given up meanwhile
