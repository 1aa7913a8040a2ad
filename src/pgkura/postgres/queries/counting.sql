-- What the server counts of tables whose inserts alone are logged. From version 15 on: before it counts were sent by
-- messages that could be lost.

-- name: until
-- Up to which time every commit is surely counted. A session counts for itself, and hands its counts over when it is
-- asked for nothing and outside of a transaction: at once, or within ten seconds, or within a minute where others are
-- at the same counts. So what a session has not handed over was committed shortly before it last was so, or since.
-- `quiet`: seconds after which an idle session has handed over; `slack`: how long before its last pause that can be.
-- Whose state we may not see may have anything in hand: its time is NULL.
with session as (
    select a.backend_start, a.state, a.state_change, least(a.xact_start, a.query_start) as began,
           coalesce(a.backend_type, '') as kind
    from pg_catalog.pg_stat_activity a
    where a.datid = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
      and a.pid <> pg_catalog.pg_backend_pid()
      -- Ours write to no table.
      and not (a.usesysid = (select r.oid from pg_catalog.pg_roles r where r.rolname = session_user)
               and a.application_name ~ '^pgkura (watch|[^ ]+ (exporter|reader|holder|worker|clerk|dump|watcher)$)')
      and coalesce(a.backend_type, '') !~ (
          '^(walsender|autovacuum|parallel worker|logical replication launcher|pg_cron launcher|pg_net )')
), bound as (
    select case
        when backend_start is null then null
        when kind !~ '^(client backend|logical replication)' then backend_start
        when state = 'idle' and state_change < pg_catalog.now() - %s * interval '1 second'
            then 'infinity'::pg_catalog.timestamptz
        when state = 'idle' then state_change - %s * interval '1 second'
        when state = 'starting' then backend_start
        when state is null or state = 'disabled' then null
        else coalesce(began, state_change, backend_start) - %s * interval '1 second'
    end as at
    from session
)
select case when exists (select from bound where at is null) then 0
            else (pg_catalog.date_part('epoch', least((select min(at) from bound), pg_catalog.now())) * 1000000)
                ::pg_catalog.int8
       end,
       (select count(*) from bound where at is null)::pg_catalog.int4

-- name: epoch
-- Whatever sets counters back shows here: resets, and crashes, after which the server begins to count anew.
select pg_catalog.concat_ws(' ', pg_catalog.date_part('epoch', d.stats_reset), pg_catalog.date_part('epoch', b.stats_reset))
from pg_catalog.pg_stat_database d, pg_catalog.pg_stat_bgwriter b
where d.datname = pg_catalog.current_database()

-- name: uncounted
-- Whether somebody may work without being counted: only a superuser can choose that.
select pg_catalog.current_setting('track_counts') <> 'on'
    or exists (select from pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c
               where c ~* '^track_counts=' and c !~* '=(on|true|yes|1)$')

-- name: counters
select n.nspname, c.relname, c.oid, pg_catalog.pg_stat_get_tuples_updated(c.oid), pg_catalog.pg_stat_get_tuples_deleted(c.oid)
from pg_catalog.pg_publication p
    join pg_catalog.pg_publication_rel r on r.prpubid = p.oid
    join pg_catalog.pg_class c on c.oid = r.prrelid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where p.pubname = %s
order by 1, 2

-- name: any
select exists (select from pg_catalog.pg_publication p join pg_catalog.pg_publication_rel r on r.prpubid = p.oid
               where p.pubname = %s)
