-- Cluster-wide part of the nasty database: run as superuser, safe to run again.
-- Variables: ge16 (bool).

SELECT format('CREATE ROLE %I', r)
FROM unnest(ARRAY['nasty_owner', 'nasty_app', 'nasty_reader', 'nasty_writer', 'nasty_admin', 'nasty_replicator',
                  'nasty_bypass', 'nasty_grantor', 'nasty "quoted" ロール', 'nasty.dotted', 'NASTY_Upper']) AS r
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = r) \gexec

ALTER ROLE nasty_owner LOGIN PASSWORD 'owner-secret';
SET password_encryption = 'scram-sha-256';
ALTER ROLE nasty_app LOGIN PASSWORD 'app-secret''"\' CONNECTION LIMIT 7 VALID UNTIL '2099-12-31 23:59:59+00';
SET password_encryption = 'md5';
ALTER ROLE "NASTY_Upper" LOGIN PASSWORD 'old-md5';
RESET password_encryption;
ALTER ROLE nasty_reader NOLOGIN;
ALTER ROLE nasty_writer NOINHERIT;
ALTER ROLE nasty_admin CREATEROLE CREATEDB;
ALTER ROLE nasty_replicator LOGIN REPLICATION VALID UNTIL 'infinity';
ALTER ROLE nasty_bypass BYPASSRLS;
ALTER ROLE nasty_grantor NOLOGIN;
ALTER ROLE "nasty.dotted" LOGIN;

GRANT nasty_reader TO nasty_app;
GRANT nasty_writer TO nasty_app WITH ADMIN OPTION;
GRANT nasty_reader TO nasty_writer;
GRANT nasty_reader TO "nasty ""quoted"" ロール";
GRANT pg_monitor TO nasty_reader;
\if :ge16
GRANT nasty_grantor TO nasty_app WITH ADMIN FALSE, INHERIT FALSE, SET TRUE;
GRANT nasty_bypass TO nasty_app WITH INHERIT TRUE, SET FALSE;
GRANT nasty_grantor TO nasty_admin WITH ADMIN TRUE;
SET ROLE nasty_admin;
GRANT nasty_grantor TO nasty_reader WITH INHERIT FALSE;
RESET ROLE;
\endif

ALTER ROLE nasty_app SET statement_timeout = '5min';
ALTER ROLE nasty_app SET search_path = "nasty", "$user", public, "naïve schéma";
ALTER ROLE nasty_app SET "app.settings.weird" = E'a,b''c"d\\e';
ALTER ROLE nasty_reader SET default_transaction_read_only = on;
ALTER ROLE nasty_reader SET DateStyle = 'German, DMY';
ALTER ROLE nasty_owner SET work_mem = '8MB';

COMMENT ON ROLE nasty_app IS E'the application''s role\nsecond line, 日本語';
COMMENT ON ROLE "nasty ""quoted"" ロール" IS 'quoted';
