-- What a change log must know of its source; run by watchers, and by backups in their snapshot. No tenant's code runs
-- here, and no relation of theirs is locked.

-- name: shape
-- Two fingerprints. `rows`: all that decides what a row of the log means and which tables are in it; `definitions`: all
-- else. The numbers of the transactions that wrote the catalog rows are in both, so that there and back is seen too.
-- TRUNCATE, VACUUM and ANALYZE change nothing here.
with member as (
    select r.prrelid as relid, r.oid
    from pg_catalog.pg_publication_rel r join pg_catalog.pg_publication p on p.oid = r.prpubid
    where p.pubname in (%s, %s)
), own as (
    select c.oid::pg_catalog.int8, n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident, c.relowner, c.relacl,
           c.relrowsecurity, c.relforcerowsecurity, c.relispartition
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.oid >= 16384 and n.nspname !~ '^pg_(toast|temp)' and c.relpersistence <> 't'
), facts as (
    select pg_catalog.concat_ws(' ', 't', o.oid, o.nspname, o.relname, o.relkind, o.relpersistence, o.relreplident,
                                m.oid) as fact
    from own o left join member m on m.relid = o.oid where o.relkind in ('r', 'p')
    union all
    select pg_catalog.concat_ws(' ', 'c', a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped,
                                a.attgenerated, a.attidentity, a.xmin)
    from own o join pg_catalog.pg_attribute a on a.attrelid = o.oid where o.relkind in ('r', 'p') and a.attnum > 0
    union all
    select pg_catalog.concat_ws(' ', 'i', i.indrelid, i.indexrelid, i.indkey, i.indisprimary, i.indisreplident,
                                i.indimmediate, i.indisvalid)
    from own o join pg_catalog.pg_index i on i.indrelid = o.oid
    where o.relkind = 'r' and (i.indisprimary or i.indisreplident)
    union all
    select pg_catalog.concat_ws(' ', 'e', e.oid, e.enumtypid, e.enumlabel, e.xmin) from pg_catalog.pg_enum e
    where e.oid >= 16384
    union all
    select pg_catalog.concat_ws(' ', 'y', a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped, a.xmin)
    from own o join pg_catalog.pg_attribute a on a.attrelid = o.oid where o.relkind = 'c' and a.attnum > 0
), others as (
    select pg_catalog.concat_ws(' ', 'r', oid, nspname, relname, relkind, relowner, relacl, relrowsecurity,
                                relforcerowsecurity, relispartition) as fact from own
    union all select pg_catalog.concat_ws(' ', 'f', oid, xmin) from pg_catalog.pg_proc where oid >= 16384
    union all select pg_catalog.concat_ws(' ', 'k', oid, xmin) from pg_catalog.pg_constraint where oid >= 16384
    union all select pg_catalog.concat_ws(' ', 'x', indexrelid, indrelid, indisvalid, indkey) from pg_catalog.pg_index
              where indexrelid >= 16384 and indrelid in (select oid from own)
    union all select pg_catalog.concat_ws(' ', 'g', oid, xmin) from pg_catalog.pg_trigger where oid >= 16384
    union all select pg_catalog.concat_ws(' ', 'p', oid, xmin) from pg_catalog.pg_policy
    union all select pg_catalog.concat_ws(' ', 'w', oid, xmin) from pg_catalog.pg_rewrite where oid >= 16384
    union all select pg_catalog.concat_ws(' ', 'd', oid, xmin) from pg_catalog.pg_attrdef
    union all select pg_catalog.concat_ws(' ', 'n', oid, xmin) from pg_catalog.pg_namespace
              where oid >= 16384 and nspname !~ '^pg_(toast|temp)'
    union all select pg_catalog.concat_ws(' ', 's', seqrelid, xmin) from pg_catalog.pg_sequence
    union all select pg_catalog.concat_ws(' ', 'a', oid, xmin) from pg_catalog.pg_extension
    union all select pg_catalog.concat_ws(' ', 'v', oid, xmin) from pg_catalog.pg_event_trigger
)
select (select pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(
            coalesce(pg_catalog.string_agg(fact, E'\n' order by fact collate "C"), ''), 'UTF8')), 'hex') from facts),
       (select pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(
            coalesce(pg_catalog.string_agg(fact, E'\n' order by fact collate "C"), ''), 'UTF8')), 'hex') from others)

-- name: clock
-- Asked before the position: what is committed behind it is later, but for a hair.
select (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000)::pg_catalog.int8

-- name: visible
select pg_catalog.pg_current_snapshot()::pg_catalog.text

-- name: position
select pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text

-- name: flushed
select pg_catalog.pg_current_wal_flush_lsn() >= %s::pg_catalog.pg_lsn

-- name: tables
-- Tables that hold rows of their own, how their rows are told apart, and in which publications they are.
select c.oid::pg_catalog.int8, n.nspname, c.relname, c.relpersistence::pg_catalog.text, pg_catalog.pg_has_role(c.relowner, 'USAGE'),
       case c.relreplident
           when 'f' then 'full'
           when 'd' then case when exists (select from pg_catalog.pg_index i where i.indrelid = c.oid
                              and i.indisprimary and i.indimmediate and i.indisvalid) then 'key' else '' end
           when 'i' then case when exists (select from pg_catalog.pg_index i where i.indrelid = c.oid
                              and i.indisreplident and i.indimmediate and i.indisvalid) then 'key' else '' end
           else '' end,
       coalesce((select r.oid from pg_catalog.pg_publication_rel r join pg_catalog.pg_publication p on p.oid = r.prpubid
                 where r.prrelid = c.oid and p.pubname = %s), 0),
       coalesce((select r.oid from pg_catalog.pg_publication_rel r join pg_catalog.pg_publication p on p.oid = r.prpubid
                 where r.prrelid = c.oid and p.pubname = %s), 0),
       exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
               and d.objid = c.oid and d.deptype = 'e')
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and c.oid >= 16384 and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
order by n.nspname, c.relname

-- name: sequences
-- Values of the sequences that were used and that this role may read.
select s.nspname, s.relname, s.value
from (
    select n.nspname, c.relname,
           case when c.relkind = 'S' then
               case when pg_catalog.has_sequence_privilege(c.oid, 'USAGE, SELECT')
                    then pg_catalog.pg_sequence_last_value(c.oid) end
           end as value
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'S' and c.oid >= 16384 and n.nspname !~ '^pg_' and c.relpersistence <> 't'
    offset 0
) s
where s.value is not null
