"""Rows and what follows them: which connection loads which table, so that no code of others runs with more rights
than theirs, and in which order everything is done (jobs.py)."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from pgkura.catalog.grants import grant_statements
from pgkura.catalog.toc import Entry
from pgkura.core.names import QualifiedName, quote_ident, quote_literal
from pgkura.core.outcome import FindingClass
from pgkura.core.progress import Meter
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session, SqlError
from pgkura.repository.lists import BLOBS
from pgkura.restore import ledger
from pgkura.restore.definitions import analyze_tables, execute_entries, key_in_two
from pgkura.restore.divided import Divided, divisible, head_bytes, turns
from pgkura.restore.guests import Guests
from pgkura.restore.jobs import FIRST, SMALL_BYTES, Builder, keys_of, load_weight, together
from pgkura.restore.key_steps import KeySteps
from pgkura.restore.load import Item, Loaded, Loader, load_large_objects
from pgkura.restore.loads import Load
from pgkura.restore.parallel import Job, Work, run_jobs
from pgkura.restore.paths import Paths, search_path
from pgkura.restore.run import Run, untrusted
from pgkura.restore.units import LoadReport, LoadUnit, application_name, load_here, repeatable
from pgkura.work.pools import workers
from pgkura.work.running import end_connections, end_work
from pgkura.work.station import seed

_REFERENCED = "0A000"
BUILDING = "indexes, constraints, triggers"


class Rows:
    """All rows, indexes, constraints, triggers, policies of a run."""

    def __init__(self, run: Run, session: Session, guests: Guests) -> None:
        self._run = run
        self._session = session
        self._guests = guests
        self._paths = Paths(session, run.plan.facts, trust_code=run.plan.options.trust_code)
        self._own: dict[int, list[tuple[Load, Loaded]]] = {}
        self._divided: dict[int, Divided] = {}  # by the table's number
        self._closing: dict[int, Divided] = {}  # by the job's
        self._sent = Meter()
        self.rows = 0

    def restore(self) -> None:
        """Everything. The first error of ours stops it."""
        run = self._run
        loads = self._loads()
        exposed = {QualifiedName(s, n): str(o) for s, n, o, _ in self._session.rows(query("target", "exposed"))}
        as_owner = [x for x in loads if not run.plan.options.trust_code and not x.managed and x.target in exposed]
        if run.ledger and not as_owner and not run.failed and len(run.findings) == run.known:
            # Only what went smoothly so far can be gone on with: nothing has to be told about it later.
            ledger.note(self._session, ledger.READY)
        left = [x for x in loads if not run.kept.whole(x)]
        self.rows = run.kept.rows(loads)
        with self._fence() as fence:
            units = self._units([x for x in left if x not in as_owner], fence)
            self._run_jobs(units, [(x, exposed[x.target]) for x in left if x in as_owner], frozenset(exposed))

    def _loads(self) -> list[Load]:
        run = self._run
        loads = [load for load in run.plan.loads if load.data.layers]
        # By what this run keeps, not by what was planned: going on may have been refused.
        if run.plan.empty and not run.kept.layers and not _empty(run, self._session):
            loads = [load for load in loads if load.target not in run.plan.empty]
        return loads

    def _units(self, loads: Sequence[Load], fence: int) -> list[LoadUnit]:
        run = self._run
        holding = {QualifiedName(s, n) for s, n in self._session.rows(query("target", "holding_rows"))}
        divided = [x for x in loads if run.ledger and divisible(x)]
        self._divided = {x.data.number: Divided(load=x) for x in divided}
        items = {
            load.data.number: Item(
                load=load,
                path=self._paths.of(load),
                truncate=load.data.bytes >= SMALL_BYTES or load.target in holding or bool(fence and not run.ledger),
            )
            for load in loads
        }

        def alone(load: Load) -> bool:
            item = items[load.data.number]
            return item.truncate or not item.alone

        whole = together([x for x in loads if x.data.number not in self._divided], alone)
        head = 0 if run.kept.layers else head_bytes((x.data.bytes for x in loads), run.plan.options.parallel)
        return [
            *(
                self._unit(fence, items)
                for load in divided
                for items in turns(self._parts(load, head, load.target in holding))
            ),
            *(self._unit(fence, [items[load.data.number] for load in group]) for group in whole),
        ]

    def _parts(self, load: Load, head: int, holding: bool) -> Iterator[Item]:
        """Of a table that is divided; the first one frozen, which empties the table, where it has `head` bytes or the
        table holds what the ledger does not tell of: dead rows of a restore that was cut short."""
        kept = self._run.kept
        there = kept.layers.get(load.data.number, {})
        parts = load.parts_left(there) if kept.layers else load.parts(head)
        emptied = bool(head) or (holding and not there)
        for part in parts:
            yield Item(load=part, path=self._paths.of(part), truncate=emptied and part.first == 0)

    def _unit(self, fence: int, items: Sequence[Item]) -> LoadUnit:
        run = self._run
        return LoadUnit(
            access=run.access,
            items=tuple(items),
            settings=run.settings,
            fence=fence,
            ledger=run.ledger,
            epoch=run.epoch,
            draw=run.seen.draw,
        )

    def _run_jobs(
        self, units: Sequence[LoadUnit], own: Sequence[tuple[Load, str]], exposed: frozenset[QualifiedName]
    ) -> None:
        run = self._run
        loads = [self._load_job(-(place + 1), unit) for place, unit in enumerate(units)]
        loads += [self._own_job(-(len(loads) + place + 1), load, owner) for place, (load, owner) in enumerate(own)]
        parts = list(loads)
        loads += [self._close_job(-(len(parts) + n + 1), one, parts) for n, one in enumerate(self._divided.values())]
        finished = self._finished(units)
        entries = [e for e in run.plan.after if e.dump_id not in run.there]
        builder = self._builder(loads, finished, exposed)
        first = keys_of(entries) if run.between is not None else entries
        building = builder.jobs(first)
        self._carry_out(loads, [*building, *self._analyzing(loads, finished, building)], len(first), units)
        if run.between is not None:
            if run.ledger:
                ledger.note(self._session, ledger.OPENING)  # rows are no longer those of the chunks
            run.between(run, self._session)
            builder.loads = {}
            builder.all_rows = frozenset()
            rest = [e for e in entries if e not in first]
            self._carry_out([], builder.jobs(rest), len(rest), ())

    def _carry_out(self, loads: Sequence[Job], building: Sequence[Job], count: int, units: Sequence[LoadUnit]) -> None:
        run = self._run
        jobs = [*loads, *building]
        left, built = len(loads), 0
        run.progress.stage("rows", total=run.plan.bytes_left, unit="bytes")
        for job, report in self._done(jobs, sum(unit.bytes for unit in units)):
            if job in loads:
                left -= 1
                self._collect(job, report)
                run.progress.advance(self._sent.take() + (job.size if report is None else report.untold))
            else:
                built += job.size
            if left:
                continue
            if job in loads:
                run.progress.stage(BUILDING, total=count - built, unit="objects")
            else:
                run.progress.advance(job.size)
        if not loads:
            run.progress.stage(BUILDING, total=0, unit="objects")

    def _done(self, jobs: Sequence[Job], size: int) -> Iterator[tuple[Job, LoadReport | None]]:
        run = self._run
        parallel = run.plan.options.parallel
        name = application_name(run.access)
        seed(run.access, run.repo, stop=run.stop, moved=self._sent.add)
        with workers(
            run.crew.else_threads(),
            run.access,
            count=parallel,
            data_bytes=size,
            abort=lambda: end_work(run.access, run.endpoint, name, run.stop),
        ) as pool:
            yield from run_jobs(jobs, pool, run.open, parallel=parallel, stop=run.stop, tick=self._tick)

    def _tick(self) -> None:
        if count := self._sent.take():
            self._run.progress.advance(count)

    def _load_job(self, number: int, unit: LoadUnit) -> Job:
        """Workers elsewhere may vanish after they committed and before they said so: what cannot be loaded twice
        stays here."""
        of = self._divided.get(unit.items[0].load.data.number)
        if of is not None and unit.items[0].frozen:
            of.head = number
        rows = Job(
            gives=frozenset({number}),
            deps=frozenset() if of is None or of.head in (None, number) else frozenset({of.head}),
            weight=load_weight(unit.bytes if of is None else of.load.data.bytes),
            size=unit.bytes,
            rows=unit.bytes,
            part_of=None if of is None else of.load.data.number,
            needless=None if of is None else lambda: of.failed,
        )
        if self._run.crew.given is None or repeatable(unit):
            return replace(rows, unit=unit)

        def work(session: Session) -> None:
            report = load_here(unit, session, self._run.repo, self._run.stop)
            self._own[number] = list(zip((item.load for item in unit.items), report.loaded, strict=True))

        return replace(rows, work=work)

    def _close_job(self, number: int, one: Divided, parts: Sequence[Job]) -> Job:
        """After all parts of a table: there is something to do only where one could not be loaded."""
        self._closing[number] = one
        return Job(
            gives=frozenset({number}),
            deps=frozenset[int]().union(*(job.gives for job in parts if job.part_of == one.load.data.number)),
            weight=FIRST,
            light=True,
            needless=lambda: not one.failed,
            work=one.empty,
        )

    def _finished(self, units: Sequence[LoadUnit]) -> dict[int, list[Item]]:
        """Which tables have all their rows once a job is done."""
        found = {number: [Item(load=one.load)] for number, one in self._closing.items()}
        for place, unit in enumerate(units):
            if unit.items[0].load.first is None:
                found[-(place + 1)] = list(unit.items)
        return found

    def _own_job(self, number: int, load: Load, owner: str) -> Job:
        def work(_: Session) -> None:
            self._own[number] = [(load, self._as_owner(load, owner))]

        size = load.data.bytes
        return Job(gives=frozenset({number}), weight=load_weight(size), size=size, rows=size, work=work)

    def _as_owner(self, load: Load, owner: str) -> Loaded:
        run, guests = self._run, self._guests
        with guests.lock:
            reason = guests.why_not(owner)
            if reason:
                run.tell(FindingClass.LOST, f"rows of {load.target}", untrusted("loading it", reason))
                return Loaded(rows=0)
            guests.admit(owner)
            session = guests.session(owner)
            loader = Loader(session=session, repo=run.repo, stop=run.stop, ledger=False, epoch=run.epoch)
            return loader.table(Item(load=load, path=search_path(run.plan.facts, owner)))

    def _collect(self, job: Job, report: LoadReport | None) -> None:
        number = min(job.gives)
        told: list[tuple[Load, Loaded]] = []
        if report is not None and job.unit is not None:
            told = list(zip((item.load for item in job.unit.items), report.loaded, strict=True))
        elif number in self._closing:
            loaded, sums = self._closing[number].result
            told = [(self._closing[number].load, loaded)]
            if sums is not None:
                self._run.seen.sums[told[0][0].data.number] = sums
        elif job.part_of is None or number in self._own:
            told = self._own.pop(number)
        for load, loaded in told:
            if load.first is not None:
                self._divided[load.data.number].add(load, loaded)
                continue
            self.rows += loaded.rows
            if loaded.cuts is not None:
                self._run.seen.cuts.add(load.data.number, loaded.cuts)
            if loaded.finding is not None:
                self._run.findings.append(loaded.finding)
            if loaded.by_path:
                self._run.progress.note(f"rows of {load.target} needed the source's own search_path")

    def _builder(
        self, loads: Sequence[Job], finished: Mapping[int, Sequence[Item]], exposed: frozenset[QualifiedName]
    ) -> Builder:
        plan = self._run.plan
        tables = {e.dump_id: QualifiedName(e.schema, e.tag) for e in plan.before if e.desc == "TABLE"}
        of_unit = {item.load.target: number for number, items in finished.items() for item in items}
        facts = {t.qname: t for t in plan.facts.tables}
        late = {
            n for n, t in facts.items() if t.kind != "r" or t.is_partition or t.load_root or t.config_of or t.managed
        }
        sizes = {load.target: load.data.bytes for load in plan.loads}
        return Builder(
            tables=tables,
            loads={d: of_unit[name] for d, name in tables.items() if name in of_unit},
            late=frozenset(d for d, name in tables.items() if name in late or name in exposed or name not in facts),
            all_rows=frozenset(given for job in loads for given in job.gives),
            sizes={d: sizes.get(name, 0) for d, name in tables.items()},
            alone=plan.as_owner,
            make=self._build,
            make_key=self._build_key,
        )

    def _build(self, entries: Sequence[Entry]) -> Callable[[Session], None]:
        return lambda session: execute_entries(self._run, session, self._guests, entries)

    def _build_key(self, entry: Entry, steps: KeySteps) -> tuple[Work, Work]:
        return key_in_two(self._run, entry, steps)

    def _analyze(self, names: Sequence[QualifiedName]) -> Callable[[Session], None]:
        return lambda session: analyze_tables(self._run, session, names)

    def _analyzing(
        self, loads: Sequence[Job], finished: Mapping[int, Sequence[Item]], building: Sequence[Job]
    ) -> Iterator[Job]:
        """Planner statistics as soon as a table's indexes are there."""
        plan = self._run.plan
        everything = frozenset(given for job in loads for given in job.gives)
        ids = {QualifiedName(e.schema, e.tag): e.dump_id for e in plan.before if e.desc == "TABLE"}
        for load in loads:
            items = finished.get(min(load.gives), ())
            names = [i.load.target for i in items if i.alone and i.load.target in ids]
            uses = frozenset(ids[name] for name in names)
            others = everything - load.gives
            before = [j.gives for j in building if j.uses & uses and not j.deps & others]
            if names:
                yield Job(
                    gives=frozenset({min(load.gives) - len(loads)}),
                    deps=load.gives.union(*before),
                    uses=uses,
                    locks=uses,
                    weight=sum(i.load.data.bytes for i in items) // 10,
                    work=self._analyze(names),
                )

    @contextmanager
    def _fence(self) -> Iterator[int]:
        """While inside, workers elsewhere may write; afterwards none can, not even one that was given up for lost."""
        run = self._run
        if run.crew.given is None:
            yield 0
            return
        fence = secrets.randbits(62) + 1
        self._session.one("SELECT pg_catalog.pg_advisory_lock(%s)", (fence,))
        try:
            yield fence
        finally:
            if not self._session.broken:
                self._session.one("SELECT pg_catalog.pg_advisory_unlock(%s)", (fence,))
            end_connections(run.endpoint, application_name(run.access))


def _empty(run: Run, session: Session) -> bool:
    """Empty the platform's tables together; False, with findings, where the server refuses."""
    tables = ", ".join(t.sql for t in run.plan.empty)
    session.replica_role()
    try:
        try:
            session.execute(f"TRUNCATE {tables}")
        except SqlError as error:
            if session.broken or error.sqlstate not in (_REFERENCED, "42501"):
                raise
            # Another table's foreign key points there, or only DELETE is allowed; in this role no trigger fires.
            session.script("".join(f"DELETE FROM ONLY {t.sql};\n" for t in run.plan.empty))
    except SqlError as error:
        if session.broken:
            raise
        for table in run.plan.empty:
            run.refused(f"rows of {table}", error)
        return False
    finally:
        if not session.broken:
            session.execute("SET session_replication_role = origin")
    return True


def restore_large_objects(run: Run, session: Session) -> None:
    """Contents, then owner, comment and privileges of each."""
    facts = run.plan.large_objects
    if not facts:
        return
    run.progress.stage("large objects", total=run.plan.blobs.bytes if run.plan.blobs else 0, unit="bytes")
    if BLOBS not in run.kept.layers:
        load_large_objects(
            session, run.repo, run.plan.blobs, [o.oid for o in facts], run.stop, run.progress, run.ledger
        )
    for large in facts:
        run.stop.check()
        name = f"LARGE OBJECT {large.oid}"
        title = f"large object {large.oid}"
        run.attempt(session, f"owner of {title}", f"ALTER {name} OWNER TO {quote_ident(large.owner)}")
        if large.comment:
            run.attempt(session, f"comment of {title}", f"COMMENT ON {name} IS {quote_literal(large.comment)}")
        for sql in grant_statements(name, large.acl, skip=large.owner):
            run.attempt(session, f"privileges of {title}", sql)
