-- Asked inside a worker's transaction after its locks: functions that read the catalogs of now, not of the
-- snapshot. `names` and `oids` run in parallel.
select t.i::int4, pg_catalog.to_regclass(t.name)::pg_catalog.oid::int8,
       pg_catalog.pg_relation_filenode(t.oid::pg_catalog.oid)::int8,
       extract(epoch from pg_catalog.clock_timestamp())::float8
from unnest(%s::pg_catalog.text[], %s::pg_catalog.int8[]) with ordinality as t(name, oid, i)
order by t.i
