-- Definitions that this role may not read whole, and that pg_dump leaves out or cuts short without an error.
-- The conditions are those of the view pg_user_mappings and of pg_dump itself.
with me as (select r.rolsuper as super from pg_catalog.pg_roles r where r.rolname = current_user)
select 'subscription', s.subname::pg_catalog.text, 'only a superuser may read subscriptions'
from pg_catalog.pg_subscription s, me
where s.subdbid = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
  and not me.super
union all
select 'user mapping', pg_catalog.concat(case when u.umuser = 0 then 'public' else u.usename end, ' on server ', u.srvname),
       'its options (passwords) are hidden from this role'
from pg_catalog.pg_user_mappings u
join pg_catalog.pg_foreign_server s on s.oid = u.srvid
cross join me
where not me.super
  and not (u.umuser <> 0 and u.usename = current_user
           and (pg_catalog.pg_has_role(s.srvowner, 'USAGE') or pg_catalog.has_server_privilege(s.oid, 'USAGE')))
  and not (u.umuser = 0 and pg_catalog.pg_has_role(s.srvowner, 'USAGE'))
order by 1, 2
