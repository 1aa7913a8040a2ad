-- Tables that may be read by a planned query (page ranges). Planning folds constants in index expressions and
-- predicates and in extended statistics: it runs their functions, with our rights. Only a table's owner can add such
-- an index while we read; so the owner, and those of all roots above, must be ourselves or a superuser, and nothing
-- that is there may depend on a function, operator or type that somebody made (enum labels are just values).
-- A hosted platform's own roles are trusted where its superuser made their schema, which no tenant can feign.
with trusted as (
    select r.oid from pg_catalog.pg_roles r
    where r.rolsuper or r.rolname = current_user
       or r.rolname = any (%s::pg_catalog.text[])
          and exists (select from pg_catalog.pg_namespace n join pg_catalog.pg_roles o on o.oid = n.nspowner
                      where n.nspname = 'auth' and o.rolsuper)
), own_code as (
    select i.indrelid as relid
    from pg_catalog.pg_index i
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = i.indexrelid
    where (i.indexprs is not null or i.indpred is not null) and d.refobjid >= 16384
      and (d.refclassid in ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass)
           or d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
              and not exists (select from pg_catalog.pg_type t where t.oid = d.refobjid and t.typtype = 'e'))
    union
    select s.stxrelid
    from pg_catalog.pg_statistic_ext s
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass and d.objid = s.oid
    where s.stxexprs is not null and d.refobjid >= 16384
      and (d.refclassid in ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass)
           or d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
              and not exists (select from pg_catalog.pg_type t where t.oid = d.refobjid and t.typtype = 'e'))
)
select c.oid::int8
from pg_catalog.pg_class c
where c.relkind = 'r' and c.oid >= 16384 and c.relowner in (select oid from trusted)
  and c.oid not in (select relid from own_code)
  and not exists (select from pg_catalog.pg_partition_ancestors(c.oid) as a(relid)
                  join pg_catalog.pg_class p on p.oid = a.relid
                  where p.relowner not in (select oid from trusted))
