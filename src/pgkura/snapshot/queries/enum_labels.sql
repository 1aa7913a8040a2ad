-- Every enum label: COPY writes the label of now, not of the snapshot.
select e.oid::int8, n.nspname, t.typname, e.enumlabel
from pg_catalog.pg_enum e
join pg_catalog.pg_type t on t.oid = e.enumtypid
join pg_catalog.pg_namespace n on n.oid = t.typnamespace
