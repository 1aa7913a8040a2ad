-- Tables and partition roots that this role cannot lock: pg_dump would fail on them as a whole. NULL for what was
-- dropped after the snapshot.
select n.nspname, c.relname
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and c.relpersistence <> 't'
  and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
  and not coalesce(pg_catalog.has_table_privilege(c.oid, 'SELECT')
                   and pg_catalog.has_schema_privilege(n.oid, 'USAGE'), true)
order by 1, 2
