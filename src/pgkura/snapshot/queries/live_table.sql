-- A table as it is now; no row when it is gone. Columns as in the facts.
select c.oid::int8, n.nspname, c.relname, c.relkind::pg_catalog.text, c.relfilenode::int8,
       a.attnum::int4, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
       a.attgenerated::pg_catalog.text, a.attidentity::pg_catalog.text
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.oid = any (%s)
order by c.oid, a.attnum
