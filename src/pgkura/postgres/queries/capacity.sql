-- Room that a server has.

-- name: capacity
-- Connections that server, database and role leave free (the least of them), and the size of the lock table.
-- Reserved connections are not ours. A role that may not see others' sessions still sees that they exist.
with used as (
    select count(*) as server,
           count(*) filter (where a.datname = pg_catalog.current_database()) as database,
           count(*) filter (where a.usename = current_user) as role
    from pg_catalog.pg_stat_activity a
    where a.backend_type = 'client backend'
)
select least(
           pg_catalog.current_setting('max_connections')::int4
             - pg_catalog.current_setting('superuser_reserved_connections')::int4
             - coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::int4
             - u.server,
           case when d.datconnlimit < 0 then 1000000 else d.datconnlimit - u.database end,
           case when r.rolconnlimit < 0 then 1000000 else r.rolconnlimit - u.role end
       )::int4,
       (pg_catalog.current_setting('max_locks_per_transaction')::int8
         * (pg_catalog.current_setting('max_connections')::int8
            + pg_catalog.current_setting('max_prepared_transactions')::int8))::int8,
       (select count(*) from pg_catalog.pg_class c where c.relkind in ('v', 'm') and c.oid >= 16384)::int8
from used u, pg_catalog.pg_database d, pg_catalog.pg_roles r
where d.datname = pg_catalog.current_database() and r.rolname = current_user
