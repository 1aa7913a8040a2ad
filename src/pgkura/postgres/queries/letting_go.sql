-- Event triggers that take a table out of the change log in the very transaction in which it loses its key: until that is
-- done the server refuses its UPDATE and DELETE (`watch --event-triggers`). They never make a command fail, nor wait for
-- more than a moment, and can do nothing but that: what they run is fixed, and of ours by its name.

-- name: install
create schema if not exists pgkura_watch;
create or replace function pgkura_watch.let_go() returns event_trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $let_go$
declare
    one record;
begin
    for one in
        select p.pubname, n.nspname, c.relname
        from pg_catalog.pg_publication p
            join pg_catalog.pg_publication_rel r on r.prpubid = p.oid
            join pg_catalog.pg_class c on c.oid = r.prrelid
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where p.pubname ~ '^pgkura_[0-9a-f]{8}$' and c.relkind = 'r' and c.relreplident <> 'f'
          and not exists (
            select from pg_catalog.pg_index i where i.indrelid = c.oid and i.indimmediate and i.indisvalid
            and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end)
    loop
        begin
            execute pg_catalog.format('alter publication %I drop table only %I.%I',
                                      one.pubname, one.nspname, one.relname);
        exception when others then
            null;
        end;
    end loop;
exception when others then
    null;
end
$let_go$;
drop event trigger if exists pgkura_watch_keys;
drop event trigger if exists pgkura_watch_keys_drop;
create event trigger pgkura_watch_keys on ddl_command_end when tag in ('ALTER TABLE')
    execute function pgkura_watch.let_go();
create event trigger pgkura_watch_keys_drop on sql_drop execute function pgkura_watch.let_go()

-- name: remove
drop event trigger if exists pgkura_watch_keys;
drop event trigger if exists pgkura_watch_keys_drop;
drop function if exists pgkura_watch.let_go()
