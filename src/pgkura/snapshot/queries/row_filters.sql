-- Tables of which this role would see only some rows: row security applies to it.
select n.nspname, c.relname
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and c.relrowsecurity and n.nspname !~ '^pg_'
  and pg_catalog.has_schema_privilege(n.oid, 'USAGE') and pg_catalog.has_table_privilege(c.oid, 'SELECT')
  and pg_catalog.row_security_active(c.oid)
order by 1, 2
