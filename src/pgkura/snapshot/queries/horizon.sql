-- What the snapshot of one of our connections holds back: its xmin's age, and the dead rows of this database.
select pg_catalog.age(a.backend_xmin)::int8,
       (select coalesce(pg_catalog.sum(pg_catalog.pg_stat_get_dead_tuples(c.oid)), 0)
        from pg_catalog.pg_class c where c.relkind in ('r', 't', 'm'))::int8
from pg_catalog.pg_stat_activity a
where a.pid = %s and a.backend_xmin is not null
