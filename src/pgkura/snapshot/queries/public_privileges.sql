-- What everybody may do in the schema `public`: no row where there is no such schema, one with null where nothing.
-- An archive states it relative to a default that differs between majors of server and pg_dump.
select e.privilege_type
from pg_catalog.pg_namespace n
left join lateral pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) as e on e.grantee = 0
where n.nspname = 'public'
order by 1
