-- For every heap table: a fingerprint of how its rows print, and whether that can change while no tuple does.
-- Columns and, behind them, all types: labels of enums, attributes of composites, output functions. `unsteady` are
-- tables with a value whose text depends on other things than itself: names of catalog objects (reg*), and types made
-- by users whose output function is not immutable.
with recursive heaps as (
    select c.oid from pg_catalog.pg_class c join pg_catalog.pg_am m on m.oid = c.relam
    where c.relkind = 'r' and c.oid >= 16384 and m.amname = 'heap'
), fields as materialized (
    select a.attrelid, a.attnum, a.atttypid, a.atttypmod, a.attgenerated, a.atthasmissing
    from pg_catalog.pg_attribute a join heaps h on h.oid = a.attrelid
    where a.attnum > 0 and not a.attisdropped
), reached (root, typid) as (
    -- Each type once, however many columns are of it.
    select distinct f.atttypid, f.atttypid from fields f
    union
    select u.root, x.typid
    from reached u
    join pg_catalog.pg_type t on t.oid = u.typid
    cross join lateral (
        select t.typelem where t.typelem <> 0
        union all select t.typbasetype where t.typbasetype <> 0
        union all select r.rngsubtype from pg_catalog.pg_range r where r.rngtypid = t.oid
        union all select r.rngtypid from pg_catalog.pg_range r where r.rngmultitypid = t.oid
        union all select a.atttypid from pg_catalog.pg_attribute a
                  where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
    ) as x(typid)
), uses as (
    select distinct f.attrelid as relid, r.typid from fields f join reached r on r.root = f.atttypid
), described as materialized (
    select t.oid,
           pg_catalog.concat_ws(' ', t.oid, t.typtype, t.typelem, t.typbasetype, t.typtypmod, p.oid, p.xmin,
               (select pg_catalog.string_agg(pg_catalog.concat_ws('=', e.oid, e.enumlabel), ',' order by e.oid)
                from pg_catalog.pg_enum e where e.enumtypid = t.oid),
               (select pg_catalog.string_agg(pg_catalog.concat_ws(':', a.attnum, a.atttypid, a.atttypmod), ',' order by a.attnum)
                from pg_catalog.pg_attribute a
                where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped)) as text,
           t.oid = any (
               '{regproc,regprocedure,regoper,regoperator,regclass,regtype,regrole,regnamespace,regcollation,regconfig,regdictionary,aclitem}'::pg_catalog.regtype[]::pg_catalog.oid[])
           or p.oid >= 16384 and p.provolatile <> 'i' as unsteady,
           -- Types whose binary form is the same on every server of every version: no object ids, nothing private.
           t.typtype = 'e' or t.oid = any (
               '{bool,int2,int4,int8,float4,float8,numeric,text,varchar,bpchar,bytea,uuid,date,timestamp,timestamptz,json,jsonb}'::pg_catalog.regtype[]::pg_catalog.oid[]) as binary_safe
    from pg_catalog.pg_type t
    join pg_catalog.pg_proc p on p.oid = t.typoutput
    where t.oid in (select typid from reached)
), columns as (
    select f.attrelid,
           pg_catalog.string_agg(pg_catalog.concat_ws(':', f.attnum, f.atttypid, f.atttypmod, f.attgenerated, f.atthasmissing),
                                 ',' order by f.attnum) as text
    from fields f
    group by f.attrelid
)
select c.attrelid::int8,
       pg_catalog.md5(c.text || '|' || pg_catalog.string_agg(d.text, '|' order by d.oid)),
       pg_catalog.bool_or(d.unsteady),
       pg_catalog.bool_and(d.binary_safe)
from columns c
join uses u on u.relid = c.attrelid
join described d on d.oid = u.typid
group by c.attrelid, c.text
