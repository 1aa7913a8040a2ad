-- Stand-in of a hosted project, part 1: roles. Run as supabase_admin, the bootstrap superuser.
-- Variables: ge16, ge17 (bool), password (one for all that may log in).

CREATE ROLE postgres SUPERUSER CREATEDB CREATEROLE LOGIN REPLICATION BYPASSRLS PASSWORD :'password';
ALTER ROLE supabase_admin PASSWORD :'password';
ALTER DATABASE postgres OWNER TO postgres;

CREATE ROLE anon NOLOGIN INHERIT;
CREATE ROLE authenticated NOLOGIN INHERIT;
CREATE ROLE service_role NOLOGIN INHERIT BYPASSRLS;
CREATE ROLE authenticator LOGIN NOINHERIT PASSWORD :'password';
CREATE ROLE supabase_auth_admin LOGIN NOINHERIT PASSWORD :'password';
CREATE ROLE supabase_storage_admin LOGIN NOINHERIT CREATEROLE PASSWORD :'password';
CREATE ROLE supabase_realtime_admin LOGIN NOINHERIT CREATEROLE REPLICATION PASSWORD :'password';
CREATE ROLE supabase_functions_admin LOGIN NOINHERIT CREATEROLE PASSWORD :'password';
CREATE ROLE supabase_read_only_user LOGIN BYPASSRLS PASSWORD :'password';
CREATE ROLE supabase_replication_admin LOGIN REPLICATION PASSWORD :'password';
CREATE ROLE supabase_etl_admin LOGIN BYPASSRLS PASSWORD :'password';
CREATE ROLE supabase_privileged_role NOLOGIN;
CREATE ROLE dashboard_user NOLOGIN CREATEROLE CREATEDB REPLICATION;
CREATE ROLE pgbouncer LOGIN PASSWORD :'password';

GRANT anon, authenticated, service_role TO authenticator;
GRANT authenticator TO supabase_storage_admin;
GRANT pg_read_all_data TO supabase_read_only_user;
GRANT supabase_privileged_role TO postgres;

ALTER ROLE postgres SET search_path = "$user", public, extensions;
ALTER ROLE supabase_admin SET search_path = "$user", public, auth, extensions;
ALTER ROLE anon SET statement_timeout = '3s';
ALTER ROLE authenticated SET statement_timeout = '8s';
-- hosted also presets session_preload_libraries = supautils, safeupdate, which are not at hand here
ALTER ROLE authenticator SET statement_timeout = '8s';
ALTER ROLE authenticator SET lock_timeout = '8s';
ALTER ROLE supabase_auth_admin SET search_path = auth;
ALTER ROLE supabase_auth_admin SET idle_in_transaction_session_timeout = 60000;
ALTER ROLE supabase_auth_admin SET log_statement = none;
ALTER ROLE supabase_storage_admin SET search_path = storage;
ALTER ROLE supabase_storage_admin SET log_statement = none;
ALTER ROLE supabase_realtime_admin SET search_path = realtime;

-- schemas and their owners -------------------------------------------------------------------------------------------
CREATE SCHEMA auth AUTHORIZATION supabase_admin;
CREATE SCHEMA storage AUTHORIZATION supabase_admin;
CREATE SCHEMA realtime AUTHORIZATION supabase_admin;
CREATE SCHEMA graphql AUTHORIZATION supabase_admin;
CREATE SCHEMA graphql_public AUTHORIZATION supabase_admin;
CREATE SCHEMA vault AUTHORIZATION supabase_admin;
CREATE SCHEMA net AUTHORIZATION supabase_admin;
CREATE SCHEMA cron AUTHORIZATION supabase_admin;
CREATE SCHEMA pgbouncer AUTHORIZATION pgbouncer;
CREATE SCHEMA extensions AUTHORIZATION postgres;

GRANT USAGE ON SCHEMA public, extensions, graphql, graphql_public TO postgres, anon, authenticated, service_role;
GRANT ALL ON SCHEMA extensions TO dashboard_user;
GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role, postgres;
GRANT ALL ON SCHEMA auth TO supabase_auth_admin, dashboard_user;
GRANT USAGE ON SCHEMA storage TO anon, authenticated, service_role;
GRANT USAGE ON SCHEMA storage TO postgres WITH GRANT OPTION;
GRANT ALL ON SCHEMA storage TO supabase_storage_admin WITH GRANT OPTION;
GRANT ALL ON SCHEMA storage TO dashboard_user;
GRANT USAGE ON SCHEMA realtime TO postgres, anon, authenticated, service_role;
GRANT ALL ON SCHEMA realtime TO supabase_realtime_admin;
GRANT USAGE ON SCHEMA vault TO postgres WITH GRANT OPTION;
GRANT USAGE ON SCHEMA vault TO service_role;
GRANT USAGE ON SCHEMA net TO supabase_functions_admin, postgres, anon, authenticated, service_role;
GRANT USAGE ON SCHEMA cron TO postgres WITH GRANT OPTION;

\if :contrib
CREATE EXTENSION pgcrypto SCHEMA extensions;
CREATE EXTENSION "uuid-ossp" SCHEMA extensions;
CREATE EXTENSION pg_stat_statements SCHEMA extensions;
GRANT ALL ON ALL FUNCTIONS IN SCHEMA extensions TO postgres WITH GRANT OPTION;
GRANT ALL ON ALL FUNCTIONS IN SCHEMA extensions TO dashboard_user;
\endif

-- default privileges ------------------------------------------------------------------------------------------------
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA public GRANT ALL ON %s TO postgres, anon, authenticated, service_role', r, k)
FROM unnest(ARRAY['postgres', 'supabase_admin']) AS r, unnest(ARRAY['TABLES', 'SEQUENCES', 'FUNCTIONS']) AS k
WHERE :'old_grants'::boolean OR k = 'FUNCTIONS' \gexec
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE supabase_auth_admin IN SCHEMA auth GRANT ALL ON %s TO postgres, dashboard_user', k)
FROM unnest(ARRAY['TABLES', 'SEQUENCES', 'FUNCTIONS']) AS k \gexec
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA storage GRANT ALL ON %s TO postgres, anon, authenticated, service_role', k)
FROM unnest(ARRAY['TABLES', 'SEQUENCES', 'FUNCTIONS']) AS k \gexec
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA %I GRANT ALL ON %s TO postgres, anon, authenticated, service_role', s, k)
FROM unnest(ARRAY['graphql', 'graphql_public']) AS s, unnest(ARRAY['TABLES', 'SEQUENCES', 'FUNCTIONS']) AS k \gexec
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA realtime GRANT ALL ON %s TO postgres, dashboard_user', k)
FROM unnest(ARRAY['TABLES', 'SEQUENCES', 'FUNCTIONS']) AS k \gexec
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA extensions GRANT ALL ON %s TO postgres WITH GRANT OPTION', k)
FROM unnest(ARRAY['TABLES', 'SEQUENCES', 'FUNCTIONS']) AS k \gexec

CREATE PUBLICATION supabase_realtime;
ALTER PUBLICATION supabase_realtime OWNER TO postgres;

CREATE FUNCTION pgbouncer.get_auth(p_usename text) RETURNS TABLE (username text, password text) LANGUAGE sql SECURITY DEFINER
    SET search_path = '' AS $$ SELECT rolname::text, rolpassword::text FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin $$;
REVOKE ALL ON FUNCTION pgbouncer.get_auth(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgbouncer.get_auth(text) TO pgbouncer;
