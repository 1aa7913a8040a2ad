-- Relations that these sessions really hold ACCESS SHARE on.
select l.pid, l.relation::int8
from pg_catalog.pg_locks l
where l.locktype = 'relation' and l.granted and l.mode = 'AccessShareLock' and l.pid = any (%s)
  and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
