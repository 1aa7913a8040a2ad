-- Event triggers that write each change of definitions into the log, where it was committed (`watch --event-triggers`).
-- They run as whoever changes definitions, name everything in full, and never make that fail.

-- name: installed
select exists (select from pg_catalog.pg_event_trigger t join pg_catalog.pg_proc p on p.oid = t.evtfoid
               join pg_catalog.pg_namespace n on n.oid = p.pronamespace
               where n.nspname = 'pgkura_watch' and t.evtenabled <> 'D')

-- name: install
create schema pgkura_watch;
comment on schema pgkura_watch is 'pgkura watch --event-triggers: writes changes of definitions into the change log';
create function pgkura_watch.tell() returns event_trigger language plpgsql as $tell$
declare
    done pg_catalog.json;
begin
    begin
        if tg_event operator(pg_catalog.=) 'ddl_command_end' then
            select pg_catalog.json_agg(pg_catalog.json_build_object(
                       'tag', c.command_tag, 'type', c.object_type, 'name', c.object_identity))
            into done
            from (select * from pg_catalog.pg_event_trigger_ddl_commands() d
                  where not d.in_extension
                    and (d.schema_name is null or d.schema_name operator(pg_catalog.<>) 'pg_temp') limit 200) c;
        elsif tg_event operator(pg_catalog.=) 'sql_drop' then
            select pg_catalog.json_agg(pg_catalog.json_build_object(
                       'tag', tg_tag, 'type', c.object_type, 'name', c.object_identity))
            into done
            from (select * from pg_catalog.pg_event_trigger_dropped_objects() d
                  where d.original and not d.is_temporary limit 200) c;
        else
            select pg_catalog.json_agg(pg_catalog.json_build_object(
                       'tag', tg_tag, 'type', 'table', 'name', pg_catalog.format('%I.%I', n.nspname, c.relname)))
            into done
            from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
            where c.oid operator(pg_catalog.=) pg_catalog.pg_event_trigger_table_rewrite_oid()
              and c.relpersistence operator(pg_catalog.<>) 't';
        end if;
        if done is not null then
            perform pg_catalog.pg_logical_emit_message(true, 'pgkura.ddl', pg_catalog.json_build_object(
                'event', tg_event, 'objects', done, 'query', pg_catalog.left(pg_catalog.current_query(), 16384),
                'role', session_user, 'search_path', pg_catalog.current_setting('search_path'))::pg_catalog.text);
        end if;
    exception when others then
        null;
    end;
end
$tell$;
create event trigger pgkura_watch_end on ddl_command_end execute function pgkura_watch.tell();
create event trigger pgkura_watch_drop on sql_drop execute function pgkura_watch.tell();
create event trigger pgkura_watch_rewrite on table_rewrite execute function pgkura_watch.tell()

-- name: remove
drop event trigger if exists pgkura_watch_end;
drop event trigger if exists pgkura_watch_drop;
drop event trigger if exists pgkura_watch_rewrite;
drop function if exists pgkura_watch.tell();
drop schema if exists pgkura_watch
