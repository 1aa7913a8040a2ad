-- The shape of each table by itself: what of a base can be carried over a change of definitions (docs/decisions/0015).

-- name: parts
-- Of each table: `whole` is all that decides what its rows mean, `key` how they are told apart and whether they have
-- been in the publication all the time; how many columns there were ever, and the file with the rows: another one after
-- TRUNCATE and whatever writes all rows anew.
with member as (
    select r.prrelid as relid, r.oid
    from pg_catalog.pg_publication_rel r join pg_catalog.pg_publication p on p.oid = r.prpubid
    where p.pubname = any (%s::pg_catalog.name[])
), own as (
    select c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident, c.relnatts, c.relfilenode
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.oid >= 16384 and c.relkind in ('r', 'p') and n.nspname !~ '^pg_(toast|temp)' and c.relpersistence <> 't'
), facts as (
    select o.oid, false as key, pg_catalog.concat_ws(' ', 't', o.nspname, o.relname, o.relkind, o.relpersistence) as fact
    from own o
    union all
    select o.oid, true, pg_catalog.concat_ws(' ', 'r', o.relreplident, m.oid)
    from own o left join member m on m.relid = o.oid
    union all
    select a.attrelid, false, pg_catalog.concat_ws(' ', 'c', a.attnum, a.attname, a.atttypid, a.atttypmod,
                                                   a.attisdropped, a.attgenerated, a.attidentity, a.xmin)
    from own o join pg_catalog.pg_attribute a on a.attrelid = o.oid where a.attnum > 0
    union all
    select i.indrelid, true, pg_catalog.concat_ws(' ', 'i', i.indexrelid, i.indkey, i.indisprimary, i.indisreplident,
                                                  i.indimmediate, i.indisvalid)
    from own o join pg_catalog.pg_index i on i.indrelid = o.oid where i.indisprimary or i.indisreplident
), hashed as (
    select oid,
           pg_catalog.string_agg(fact, E'\n' order by fact collate "C") as whole,
           coalesce(pg_catalog.string_agg(fact, E'\n' order by fact collate "C") filter (where key), '') as keys
    from facts group by oid
)
select h.oid::pg_catalog.int8,
       pg_catalog.substr(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(h.whole, 'UTF8')), 'hex'), 1, 24),
       pg_catalog.substr(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(h.keys, 'UTF8')), 'hex'), 1, 24),
       o.relnatts::pg_catalog.int4, o.relfilenode::pg_catalog.int8
from hashed h join own o on o.oid = h.oid order by h.oid

-- name: types
-- Of types whose values print what their definition says: labels of enums, attributes of composite types.
select coalesce(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(
           pg_catalog.string_agg(fact, E'\n' order by fact collate "C"), 'UTF8')), 'hex'), '')
from (
    select pg_catalog.concat_ws(' ', 'e', e.oid, e.enumtypid, e.enumlabel, e.xmin) as fact
    from pg_catalog.pg_enum e where e.oid >= 16384
    union all
    select pg_catalog.concat_ws(' ', 'y', a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped, a.xmin)
    from pg_catalog.pg_class c join pg_catalog.pg_attribute a on a.attrelid = c.oid
    where c.oid >= 16384 and c.relkind = 'c' and a.attnum > 0
) f

-- name: missing
-- What rows that are older than a column have in it. Elements of a one-element array, as text.
select a.attrelid::pg_catalog.int8, a.attnum::pg_catalog.int4, (a.attmissingval::pg_catalog.text::pg_catalog.text[])[1]
from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid
where a.atthasmissing and not a.attisdropped and a.attnum > 0 and a.attmissingval is not null
  and c.oid >= 16384 and c.relkind = 'r' and c.relpersistence <> 't'
order by 1, 2
