-- Our own connections, and everybody who waits with one of them in the way. Poolers put their own name in front of
-- ours (Supavisor: "Supavisor - ...").
with ours as (
    select a.pid, a.application_name
    from pg_catalog.pg_stat_activity a
    where a.usename = current_user and pg_catalog.strpos(a.application_name, %s) > 0
), waiting as materialized (
    select w.pid, w.locktype, w.relation, w.waitstart
    from pg_catalog.pg_locks w
    where not w.granted
)
select o.pid, o.application_name, null::int4, null::pg_catalog.text, null::int8, null::float8, false
from ours o
union all
select o.pid, o.application_name, w.pid, w.locktype, coalesce(w.relation::int8, 0),
       extract(epoch from pg_catalog.clock_timestamp() - coalesce(w.waitstart, pg_catalog.clock_timestamp()))::float8,
       exists (select from waiting x where x.pid = o.pid)
from waiting w
cross join lateral unnest(pg_catalog.pg_blocking_pids(w.pid)) as b(pid)
join ours o on o.pid = b.pid
where not exists (select from ours x where x.pid = w.pid)
union all
-- Replay on a standby, of which pg_blocking_pids knows nothing. Only it takes such a lock there; all others conflict.
-- As a subquery the condition is asked once, before the lock table is read and sorted: with 10,000 tables that took
-- seconds, each time, on servers that are no standby.
select o.pid, o.application_name, w.pid, w.locktype, coalesce(w.relation::int8, 0),
       extract(epoch from pg_catalog.clock_timestamp() - coalesce(w.waitstart, pg_catalog.clock_timestamp()))::float8,
       false
from pg_catalog.pg_locks w
join pg_catalog.pg_locks h
  on h.granted and h.locktype = w.locktype and h.database = w.database and h.relation = w.relation
join ours o on o.pid = h.pid
where (select pg_catalog.pg_is_in_recovery())
  and not w.granted and w.locktype = 'relation' and w.mode = 'AccessExclusiveLock'
