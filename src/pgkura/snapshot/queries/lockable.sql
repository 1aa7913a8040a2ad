-- What there is to lock, read before any lock: enough to share the locks out.
select c.oid::int8, n.nspname, c.relname, c.relkind::pg_catalog.text,
       greatest(c.relpages, 0)::int8 * 8192
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and c.relpersistence <> 't'
  and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
  and pg_catalog.has_schema_privilege(n.oid, 'USAGE') and pg_catalog.has_table_privilege(c.oid, 'SELECT')
