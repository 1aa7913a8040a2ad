-- RLS, grants, default privileges, publications, foreign data, statistics, large objects, database settings.
-- Variables: super, contrib, force_rls (bool).

SET search_path = nasty, public;

-- row level security --------------------------------------------------------------------------------------------------
CREATE TABLE rls_plain (id integer PRIMARY KEY, owner_name name DEFAULT current_user, v text);
ALTER TABLE rls_plain ENABLE ROW LEVEL SECURITY;
INSERT INTO rls_plain VALUES (1, 'nasty_app', 'mine'), (2, 'other', 'theirs');
CREATE POLICY "everyone reads" ON rls_plain FOR SELECT USING (true);
CREATE POLICY own_rows ON rls_plain AS RESTRICTIVE FOR ALL TO nasty_app, nasty_writer
    USING (owner_name = current_user) WITH CHECK (owner_name = current_user AND v <> 'forbidden');
CREATE POLICY "sub ""select""" ON rls_plain FOR UPDATE TO nasty_reader
    USING (EXISTS (SELECT 1 FROM nasty.tree t WHERE t.id = rls_plain.id)) WITH CHECK ((SELECT count(*) FROM nasty.texts) > 0);
CREATE POLICY insert_only ON rls_plain FOR INSERT TO PUBLIC WITH CHECK (nasty.is_good(v));
CREATE POLICY delete_none ON rls_plain FOR DELETE TO nasty_writer USING (false);
COMMENT ON POLICY own_rows ON rls_plain IS 'a policy';
CREATE TABLE rls_without_policy (id integer);
ALTER TABLE rls_without_policy ENABLE ROW LEVEL SECURITY;
INSERT INTO rls_without_policy VALUES (1), (2);
CREATE TABLE policy_without_rls (id integer);
CREATE POLICY sleeping ON policy_without_rls USING (id > 0);
\if :force_rls
CREATE TABLE rls_forced (id integer, v text);
INSERT INTO rls_forced VALUES (1, 'hidden from its owner'), (2, 'seen');
ALTER TABLE rls_forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY second_only ON rls_forced USING (id = 2);
CREATE TABLE forced_not_enabled (id integer);
ALTER TABLE forced_not_enabled FORCE ROW LEVEL SECURITY;
INSERT INTO forced_not_enabled VALUES (1);
\endif

-- grants --------------------------------------------------------------------------------------------------------------
GRANT USAGE ON SCHEMA nasty TO nasty_reader, nasty_app;
GRANT ALL ON SCHEMA "naïve schéma" TO nasty_writer WITH GRANT OPTION;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO nasty_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA nasty TO nasty_reader;
REVOKE SELECT ON numbers FROM nasty_reader;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON texts TO nasty_writer WITH GRANT OPTION;
GRANT SELECT (id, "b c"), UPDATE (a) ON watched TO nasty_app;
GRANT SELECT ("日本語の列", "quo""te"), REFERENCES ("ID") ON "Mixed Case" TO "nasty ""quoted"" ロール" WITH GRANT OPTION;
GRANT INSERT ON no_key TO PUBLIC;
GRANT SELECT, USAGE ON SEQUENCE never_used TO nasty_app;
GRANT UPDATE ON SEQUENCE "naïve schéma"."Quoted Seq" TO "nasty.dotted";
REVOKE EXECUTE ON FUNCTION with_settings() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION with_settings() TO nasty_app WITH GRANT OPTION;
REVOKE ALL ON FUNCTION sql_body(integer, integer) FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE log_lesson(text, integer) TO nasty_writer;
GRANT EXECUTE ON FUNCTION longest(text) TO nasty_reader;
REVOKE USAGE ON TYPE mood FROM PUBLIC;
GRANT USAGE ON TYPE mood TO nasty_app;
REVOKE USAGE ON DOMAIN positive FROM PUBLIC;
-- the owner gives up its own right
CREATE TABLE owner_without_rights (id integer);
INSERT INTO owner_without_rights VALUES (1);
\if :super
REVOKE ALL ON owner_without_rights FROM CURRENT_USER;
\else
REVOKE INSERT, UPDATE, DELETE ON owner_without_rights FROM CURRENT_USER;
\endif
\if :super
-- grants by other grantors, a chain, owners other than the superuser
GRANT USAGE, CREATE ON SCHEMA nasty TO nasty_grantor, nasty_writer, "nasty ""quoted"" ロール";
SET ROLE nasty_writer;
GRANT SELECT ON nasty.texts TO nasty_app WITH GRANT OPTION;
GRANT USAGE ON SCHEMA "naïve schéma" TO nasty_app;
CREATE TABLE nasty.of_writer (id integer PRIMARY KEY, v text);
INSERT INTO nasty.of_writer VALUES (1, 'w');
GRANT SELECT ON nasty.of_writer TO nasty_grantor WITH GRANT OPTION;
SET ROLE nasty_app;
GRANT SELECT ON nasty.texts TO nasty_reader;
SET ROLE nasty_grantor;
GRANT SELECT ON nasty.of_writer TO "NASTY_Upper";
CREATE VIEW nasty.view_of_grantor AS SELECT id FROM nasty.of_writer;
RESET ROLE;
SET ROLE "nasty ""quoted"" ロール";
CREATE FUNCTION nasty.of_quoted() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$ SELECT current_user::text $$;
CREATE SEQUENCE nasty.sequence_of_quoted;
RESET ROLE;
REVOKE CREATE ON SCHEMA nasty FROM nasty_grantor, "nasty ""quoted"" ロール";
ALTER SCHEMA "日本語スキーマ" OWNER TO nasty_writer;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_relation_filenode(regclass) FROM PUBLIC;
GRANT SELECT ON pg_catalog.pg_largeobject TO nasty_bypass;
GRANT USAGE ON LANGUAGE second_plpgsql TO nasty_app;
ALTER DEFAULT PRIVILEGES FOR ROLE nasty_writer REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE nasty_writer IN SCHEMA nasty GRANT SELECT ON TABLES TO nasty_reader WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE nasty_writer GRANT ALL ON SCHEMAS TO nasty_app;
\endif
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TYPES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA nasty GRANT SELECT, INSERT ON TABLES TO nasty_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA "naïve schéma" GRANT USAGE ON SEQUENCES TO nasty_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA nasty GRANT EXECUTE ON FUNCTIONS TO nasty_app;

-- publications, subscription, foreign data ----------------------------------------------------------------------------
CREATE PUBLICATION nothing_yet;
CREATE PUBLICATION "some tables" FOR TABLE ONLY nasty.parent_a, nasty.by_range, nasty."Mixed Case"
    WITH (publish = 'insert, truncate', publish_via_partition_root = true);
COMMENT ON PUBLICATION "some tables" IS 'a publication';
\if :super
CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert');
CREATE SUBSCRIPTION far_away CONNECTION 'host=127.0.0.1 port=1 dbname=nowhere user=nobody password=subscription-secret'
    PUBLICATION "some tables", everything WITH (connect = false, enabled = false, slot_name = NONE, synchronous_commit = 'off');
COMMENT ON SUBSCRIPTION far_away IS 'a subscription';
CREATE FOREIGN DATA WRAPPER dummy_wrapper OPTIONS (debug 'true');
CREATE SERVER dummy_server TYPE 'oracle' VERSION '1.0' FOREIGN DATA WRAPPER dummy_wrapper OPTIONS (host 'ex''ample', "odd key" 'v');
CREATE USER MAPPING FOR nasty_app SERVER dummy_server OPTIONS (user 'remote', password 'mapping-secret');
CREATE USER MAPPING FOR PUBLIC SERVER dummy_server OPTIONS (user 'anyone');
CREATE FOREIGN TABLE far_table (id integer OPTIONS (column_name 'ID') NOT NULL, v text DEFAULT 'x' CHECK (v <> '')) SERVER dummy_server OPTIONS (table 'T');
GRANT USAGE ON FOREIGN DATA WRAPPER dummy_wrapper TO nasty_app WITH GRANT OPTION;
GRANT USAGE ON FOREIGN SERVER dummy_server TO nasty_app;
GRANT SELECT (id) ON far_table TO nasty_app;
COMMENT ON FOREIGN DATA WRAPPER dummy_wrapper IS 'a wrapper';
COMMENT ON SERVER dummy_server IS 'a server';
COMMENT ON FOREIGN TABLE far_table IS 'a foreign table';
\if :contrib
CREATE EXTENSION postgres_fdw SCHEMA extensions;
CREATE SERVER itself FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1', dbname 'nowhere');
CREATE FOREIGN TABLE by_list_foreign PARTITION OF by_list FOR VALUES IN ('far') SERVER itself;
\endif
\endif

-- statistics objects --------------------------------------------------------------------------------------------------
CREATE STATISTICS stat_all ON a, b, c FROM pair;
CREATE STATISTICS "Stat Some" (ndistinct, dependencies) ON id, f4 FROM numbers;
CREATE STATISTICS stat_expression (mcv) ON (id % 10), lower(v) FROM texts;
ALTER STATISTICS stat_all SET STATISTICS 77;
COMMENT ON STATISTICS stat_all IS 'a statistics object';

-- large objects -------------------------------------------------------------------------------------------------------
SELECT lo_from_bytea(700001, decode('00ff0a0d095c', 'hex'));
SELECT lo_from_bytea(700002, '');
SELECT lo_from_bytea(700003, convert_to(repeat('large object ', 50000), 'UTF8'));
-- a hole of zeros, across pages
SELECT lo_create(700004), lo_put(700004, 100000, 'end');
GRANT SELECT ON LARGE OBJECT 700001 TO nasty_reader;
GRANT SELECT, UPDATE ON LARGE OBJECT 700003 TO nasty_app WITH GRANT OPTION;
COMMENT ON LARGE OBJECT 700001 IS 'a large object';
CREATE TABLE refers_to_object (id integer PRIMARY KEY, content oid);
INSERT INTO refers_to_object VALUES (1, 700001), (2, 700003);
\if :super
ALTER LARGE OBJECT 700003 OWNER TO nasty_writer;
\endif

-- the database itself -------------------------------------------------------------------------------------------------
ALTER DATABASE :"DBNAME" SET DateStyle = 'SQL, DMY';
ALTER DATABASE :"DBNAME" SET IntervalStyle = 'sql_standard';
ALTER DATABASE :"DBNAME" SET bytea_output = 'escape';
ALTER DATABASE :"DBNAME" SET extra_float_digits = -5;
ALTER DATABASE :"DBNAME" SET TimeZone = 'Asia/Kathmandu';
ALTER DATABASE :"DBNAME" SET search_path = "$user", nasty, "naïve schéma", public;
ALTER DATABASE :"DBNAME" SET xmlbinary = 'hex';
ALTER DATABASE :"DBNAME" SET statement_timeout = '2min';
ALTER DATABASE :"DBNAME" SET quote_all_identifiers = on;
ALTER DATABASE :"DBNAME" SET standard_conforming_strings = on;
ALTER DATABASE :"DBNAME" CONNECTION LIMIT 90;
COMMENT ON DATABASE :"DBNAME" IS E'the nasty database\n日本語';
REVOKE CONNECT, TEMPORARY ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO nasty_reader;
GRANT CREATE, TEMPORARY ON DATABASE :"DBNAME" TO nasty_app WITH GRANT OPTION;
\if :super
ALTER DATABASE :"DBNAME" SET "app.motto" = E'it''s, "quoted" \\ 日本語';
ALTER DATABASE :"DBNAME" SET lc_monetary = 'C';
ALTER ROLE nasty_app IN DATABASE :"DBNAME" SET bytea_output = 'hex';
ALTER ROLE nasty_app IN DATABASE :"DBNAME" SET search_path = '';
ALTER ROLE "nasty ""quoted"" ロール" IN DATABASE :"DBNAME" SET role = nasty_reader;
GRANT CONNECT ON DATABASE :"DBNAME" TO nasty_owner;
\endif
