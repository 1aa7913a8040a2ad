-- Stand-in, last part: what postgres keeps when it stops being a superuser. Run as supabase_admin.
-- Variables: ge15, ge16, ge17, owner_rights (bool).
GRANT anon, authenticated, service_role, pg_signal_backend TO postgres WITH ADMIN OPTION;
GRANT pg_read_all_data, pg_monitor TO postgres;
\if :ge17
GRANT authenticator TO postgres WITH ADMIN OPTION;
GRANT pg_create_subscription TO postgres;
\endif
\if :owner_rights
-- what supautils lets postgres do with policies and triggers of managed tables, played by the memberships of older projects
GRANT supabase_auth_admin, supabase_storage_admin, supabase_realtime_admin TO postgres;
\endif
-- supautils.privileged_role_allowed_configs; 14 has no such grant, so there the stand-in is stricter than hosted
\if :ge15
GRANT SET ON PARAMETER session_replication_role, log_lock_waits, log_min_duration_statement, log_min_messages, log_parameter_max_length,
    log_replication_commands, log_statement, log_temp_files, track_io_timing, track_functions, wal_compression, deadlock_timeout TO postgres;
\endif
ALTER ROLE postgres NOSUPERUSER CREATEDB CREATEROLE LOGIN REPLICATION BYPASSRLS;
