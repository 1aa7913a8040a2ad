-- What must be known so that a change log never hurts its source. No tenant's code runs here, nothing is locked.

-- name: slot
-- Our slot, if it is there: who reads it, what the server has been told, what it keeps for us, and until when. Who reads
-- it by SQL functions has it only now and then, and tells by the name of his session.
select coalesce(s.active_pid, (select a.pid from pg_catalog.pg_stat_activity a
                               where a.datname = s.database and a.application_name = 'pgkura reads ' || s.slot_name
                               limit 1), 0),
       coalesce(s.confirmed_flush_lsn::pg_catalog.text, ''), coalesce(s.wal_status, ''),
       coalesce(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.restart_lsn), 0)::pg_catalog.int8,
       coalesce(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.confirmed_flush_lsn), 0)::pg_catalog.int8,
       (select setting::pg_catalog.int8 from pg_catalog.pg_settings where name = 'max_slot_wal_keep_size'),
       exists (select from pg_catalog.pg_publication p where p.pubname = s.slot_name),
       exists (select from pg_catalog.pg_publication p where p.pubname = %s)
from pg_catalog.pg_replication_slots s
where s.slot_name = %s and s.database = pg_catalog.current_database()

-- name: ours
-- All slots in this database that look like ours.
select s.slot_name::pg_catalog.text from pg_catalog.pg_replication_slots s
where s.database = pg_catalog.current_database() and s.plugin = 'pgoutput' and s.slot_name ~ '^pgkura_[0-9a-f]{8}$'
order by 1

-- name: our_publications
-- All publications that look like ours.
select p.pubname::pg_catalog.text from pg_catalog.pg_publication p
where p.pubname ~ '^pgkura_[0-9a-f]{8}(_inserts)?$' order by 1

-- name: drop
select pg_catalog.pg_drop_replication_slot(s.slot_name) from pg_catalog.pg_replication_slots s
where s.slot_name = %s and s.database = pg_catalog.current_database()

-- name: unseat
-- End whoever reads it.
select pg_catalog.pg_terminate_backend(s.active_pid) from pg_catalog.pg_replication_slots s
where s.slot_name = %s and s.database = pg_catalog.current_database() and s.active_pid is not null

-- name: server
-- Whether a change log can be had, and why not.
select pg_catalog.current_setting('wal_level'), pg_catalog.pg_is_in_recovery(),
       coalesce((select r.rolreplication or r.rolsuper from pg_catalog.pg_roles r where r.rolname = current_user), false),
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
       pg_catalog.current_setting('max_replication_slots')::pg_catalog.int4,
       (select count(*) from pg_catalog.pg_replication_slots)::pg_catalog.int4,
       pg_catalog.current_setting('max_wal_senders')::pg_catalog.int4,
       (select count(*) from pg_catalog.pg_stat_get_wal_senders())::pg_catalog.int4,
       (select setting::pg_catalog.int8 from pg_catalog.pg_settings where name = 'max_slot_wal_keep_size')

-- name: endangered
-- Tables whose UPDATE and DELETE the server refuses, because they are in this publication and their rows can no longer
-- be told apart. By the server's own rule.
select n.nspname, c.relname
from pg_catalog.pg_publication p
    join pg_catalog.pg_publication_rel r on r.prpubid = p.oid
    join pg_catalog.pg_class c on c.oid = r.prrelid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where p.pubname = %s and c.relkind = 'r' and c.relreplident <> 'f'
  and not exists (
    select from pg_catalog.pg_index i where i.indrelid = c.oid and i.indimmediate and i.indisvalid
    and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end)

-- name: open_for_long
-- The writing transaction that has been open for longest, as far as this role may see: why a slot cannot be made.
select a.pid, a.usename::pg_catalog.text, coalesce(a.application_name, ''), coalesce(a.state, ''),
       coalesce(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - a.xact_start), -1)::pg_catalog.float8
from pg_catalog.pg_stat_activity a
where a.backend_xid is not null and a.pid <> pg_catalog.pg_backend_pid()
order by a.xact_start nulls last limit 1
