-- A tenant that wants the rights of whoever touches its database. Run as hostile_tenant, a plain role.
-- Every trap calls tenant.spring(name), which climbs out of SET ROLE and writes a file that only a superuser can write.

CREATE SCHEMA tenant;
CREATE SCHEMA lures;

CREATE FUNCTION tenant.note(what pg_catalog.text) RETURNS pg_catalog.void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    -- works in a read-only transaction too; fails without rights, which is no harm and no news
    EXECUTE format('COPY (SELECT %L, current_user, session_user) TO %L', what || ' in ' || current_database(),
        current_setting('data_directory') || '/hostile-' || md5(random()::text || clock_timestamp()::text));
EXCEPTION WHEN OTHERS THEN NULL;
END $$;
CREATE FUNCTION tenant.spring(what pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tenant.note(what);
    BEGIN EXECUTE 'RESET ROLE'; EXCEPTION WHEN OTHERS THEN NULL; END;
    BEGIN EXECUTE 'RESET SESSION AUTHORIZATION'; EXCEPTION WHEN OTHERS THEN NULL; END;
    PERFORM tenant.note(pg_catalog.concat(what, ', after RESET'));
    BEGIN EXECUTE 'ALTER ROLE hostile_tenant SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
    RETURN true;
END $$;
-- lies about being immutable, as any owner may
CREATE FUNCTION tenant.calm(what pg_catalog.text, v pg_catalog.text) RETURNS pg_catalog.text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN PERFORM tenant.spring(what); RETURN v; END $$;
CREATE FUNCTION tenant.calm_bool(what pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN RETURN tenant.spring(what); END $$;

-- code in every place that runs when rows are read, written or checked ---------------------------------------------------
CREATE TABLE tenant.plain (id integer PRIMARY KEY, v text);
INSERT INTO tenant.plain SELECT g, 'v' || g FROM generate_series(1, 20) g;
CREATE TABLE tenant.with_default (id integer PRIMARY KEY, v text DEFAULT tenant.calm('default', 'x'));
INSERT INTO tenant.with_default (id) VALUES (1), (2);
CREATE TABLE tenant.with_check (id integer PRIMARY KEY, v text CHECK (tenant.calm_bool('check constraint')));
INSERT INTO tenant.with_check VALUES (1, 'a');
CREATE TABLE tenant.with_generated (id integer PRIMARY KEY, v text, g text GENERATED ALWAYS AS (tenant.calm('generated column', v)) STORED);
INSERT INTO tenant.with_generated VALUES (1, 'a');
CREATE DOMAIN tenant.checked_text AS text CHECK (tenant.calm_bool('domain check'));
CREATE TABLE tenant.with_domain (id integer PRIMARY KEY, v tenant.checked_text);
INSERT INTO tenant.with_domain VALUES (1, 'a');
CREATE TABLE tenant.with_index (id integer PRIMARY KEY, v text);
INSERT INTO tenant.with_index VALUES (1, 'a');
CREATE INDEX with_index_expression ON tenant.with_index (tenant.calm('index expression', v)) WHERE tenant.calm_bool('index predicate');
CREATE TABLE tenant.with_partition_key (id integer, v text) PARTITION BY LIST (tenant.calm('partition key', v));
CREATE TABLE tenant.with_partition_key_1 PARTITION OF tenant.with_partition_key DEFAULT;
INSERT INTO tenant.with_partition_key VALUES (1, 'a');
CREATE TABLE tenant.with_trigger (id integer PRIMARY KEY, v text);
INSERT INTO tenant.with_trigger VALUES (1, 'a'), (2, 'b');
CREATE FUNCTION tenant.on_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('trigger ' || TG_NAME); RETURN NEW; END $$;
CREATE TRIGGER before_row BEFORE INSERT OR UPDATE OR DELETE ON tenant.with_trigger FOR EACH ROW EXECUTE FUNCTION tenant.on_row();
CREATE TRIGGER always BEFORE INSERT ON tenant.with_trigger FOR EACH ROW EXECUTE FUNCTION tenant.on_row();
ALTER TABLE tenant.with_trigger ENABLE ALWAYS TRIGGER always;
CREATE TRIGGER replica AFTER INSERT ON tenant.with_trigger FOR EACH ROW EXECUTE FUNCTION tenant.on_row();
ALTER TABLE tenant.with_trigger ENABLE REPLICA TRIGGER replica;
CREATE TRIGGER statement AFTER INSERT OR TRUNCATE ON tenant.with_trigger FOR EACH STATEMENT EXECUTE FUNCTION tenant.on_row();
ALTER TABLE tenant.with_trigger ENABLE ALWAYS TRIGGER statement;
CREATE TABLE tenant.with_policy (id integer PRIMARY KEY, v text);
INSERT INTO tenant.with_policy VALUES (1, 'a');
ALTER TABLE tenant.with_policy ENABLE ROW LEVEL SECURITY;
CREATE POLICY sprung ON tenant.with_policy USING (tenant.spring('policy')) WITH CHECK (tenant.spring('policy check'));
CREATE TABLE tenant.with_rule (id integer PRIMARY KEY, v text);
INSERT INTO tenant.with_rule VALUES (1, 'a');
CREATE RULE sprung AS ON INSERT TO tenant.with_rule DO ALSO SELECT tenant.spring('rule');
CREATE VIEW tenant.sprung_view AS SELECT tenant.spring('view') AS v, 1 AS id;
CREATE MATERIALIZED VIEW tenant.sprung_matview AS SELECT tenant.spring('materialized view') AS v;
CREATE TABLE tenant.parent (id integer PRIMARY KEY);
CREATE TABLE tenant.child (parent_id integer REFERENCES tenant.parent (id), v text);
INSERT INTO tenant.parent VALUES (1);
INSERT INTO tenant.child VALUES (1, 'a');
CREATE STATISTICS tenant.sprung_statistics ON (tenant.calm('statistics', v)), id FROM tenant.plain;
CREATE FUNCTION tenant.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('event trigger'); END $$;

-- a row's cast to text lies and springs; a column named like the alias; columns named like functions ----------------------
CREATE TABLE tenant.ten (id integer PRIMARY KEY, amount integer);
INSERT INTO tenant.ten SELECT g, g * 100 FROM generate_series(1, 10) g;
CREATE FUNCTION tenant.ten_as_text(r tenant.ten) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM tenant.spring('cast of a row to text'); RETURN 'always the same'; END $$;
CREATE CAST (tenant.ten AS text) WITH FUNCTION tenant.ten_as_text(tenant.ten) AS ASSIGNMENT;
CREATE FUNCTION tenant.ten_as_json(r tenant.ten) RETURNS json LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM tenant.spring('cast of a row to json'); RETURN '{}'; END $$;
CREATE CAST (tenant.ten AS json) WITH FUNCTION tenant.ten_as_json(tenant.ten);
CREATE TABLE tenant.t (t text, id integer, tbl text, r text, src text, "row" text, c text, oid integer, count integer, "current_user" text, "ctid " text);
INSERT INTO tenant.t (t, id) VALUES ('constant', 1), ('constant', 2);
-- t.springs means springs(t) when there is no such column
CREATE FUNCTION tenant.springs(tenant.t) RETURNS text LANGUAGE sql AS $$ SELECT tenant.spring('attribute notation')::text $$;
CREATE TYPE tenant.celsius AS ENUM ('cold', 'warm');
CREATE FUNCTION tenant.celsius_to_text(tenant.celsius) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM tenant.spring('cast of an enum to text'); RETURN 'x'; END $$;
CREATE CAST (tenant.celsius AS text) WITH FUNCTION tenant.celsius_to_text(tenant.celsius) AS ASSIGNMENT;
CREATE TABLE tenant.temperatures (id integer PRIMARY KEY, c tenant.celsius);
INSERT INTO tenant.temperatures VALUES (1, 'cold'), (2, 'warm');

-- names that break out of SQL, shells, psql scripts, COPY text and tab-separated lists ------------------------------------
CREATE TABLE tenant.victim (id integer);
INSERT INTO tenant.victim VALUES (1);
CREATE TABLE tenant."x""; DROP TABLE tenant.victim; --" (id integer, "y""); DROP TABLE tenant.victim; --" text);
CREATE TABLE tenant."'; ALTER ROLE hostile_tenant SUPERUSER; --" (id integer);
CREATE TABLE tenant."nl
\! touch hostile-canary
" (id integer, "c
\! touch hostile-canary
" text DEFAULT E'd\n\\! touch hostile-canary\n');
CREATE TABLE tenant."\." (id integer);
CREATE TABLE tenant."$(touch hostile-canary)" (id integer, "`touch hostile-canary`" text);
CREATE TABLE tenant."../../../hostile-canary" (id integer);
CREATE TABLE tenant."a	b	c" ("d	e" integer);
CREATE TABLE tenant."%s%n{0}${x}%(y)s" ("%s" integer);
CREATE TABLE tenant."--help" (id integer);
CREATE TABLE tenant."[31mred[0m" (id integer);
CREATE TABLE tenant."𝓤nicode ‮txet" (id integer);
CREATE SCHEMA "sch""; DROP TABLE tenant.victim; --
\! touch hostile-canary
";
CREATE TABLE "sch""; DROP TABLE tenant.victim; --
\! touch hostile-canary
".inside (id integer);
CREATE TYPE tenant.labels AS ENUM ('''); DROP TABLE tenant.victim; --', E'x\n\\! touch hostile-canary\ny', '$$;');
CREATE FUNCTION tenant."f(); DROP TABLE tenant.victim; --"("arg
\! touch hostile-canary
" integer) RETURNS text LANGUAGE sql AS $body$ SELECT '
\! touch hostile-canary
\connect other
$$; DROP TABLE tenant.victim; --' $body$;
CREATE TRIGGER "tr
\! touch hostile-canary
" BEFORE INSERT ON tenant.victim FOR EACH ROW EXECUTE FUNCTION tenant.on_row();
COMMENT ON TABLE tenant.victim IS E'comment\n\\! touch hostile-canary\n-- Name: x; Type: TABLE\n''; DROP TABLE tenant.victim; --';
SELECT format('INSERT INTO %I.%I (%s) VALUES (1)', n.nspname, c.relname, (SELECT quote_ident(attname) FROM pg_attribute a WHERE a.attrelid = c.oid AND attnum = 1))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND (n.nspname = 'tenant' AND c.relname !~ '^[a-z_0-9]+$' OR n.nspname ~ '^sch') \gexec

-- lures: names of the catalog, found first when somebody trusts the database's search_path ---------------------------------
SET search_path = pg_catalog;
CREATE VIEW lures.pg_class AS SELECT c.* FROM pg_catalog.pg_class c WHERE tenant.spring('lure pg_class');
CREATE VIEW lures.pg_namespace AS SELECT n.oid, n.nspname, n.nspowner, n.nspacl FROM pg_catalog.pg_namespace n WHERE tenant.spring('lure pg_namespace');
CREATE VIEW lures.pg_roles AS SELECT r.* FROM pg_catalog.pg_roles r WHERE tenant.spring('lure pg_roles');
CREATE VIEW lures.pg_database AS SELECT d.oid, d.datname FROM pg_catalog.pg_database d WHERE tenant.spring('lure pg_database');
CREATE VIEW lures.pg_settings AS SELECT s.* FROM pg_catalog.pg_settings s WHERE tenant.spring('lure pg_settings');
CREATE VIEW lures.pg_stat_activity AS SELECT a.* FROM pg_catalog.pg_stat_activity a WHERE tenant.spring('lure pg_stat_activity');
CREATE FUNCTION lures.quote_ident(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure quote_ident'); RETURN pg_catalog.quote_ident($1); END $$;
CREATE FUNCTION lures.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure format'); RETURN pg_catalog.format($1, VARIADIC $2); END $$;
CREATE FUNCTION lures.current_database() RETURNS name LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure current_database'); RETURN 'elsewhere'; END $$;
CREATE FUNCTION lures.current_setting(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure current_setting'); RETURN pg_catalog.current_setting($1); END $$;
CREATE FUNCTION lures.current_setting(text, boolean) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure current_setting'); RETURN pg_catalog.current_setting($1, $2); END $$;
CREATE FUNCTION lures.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure set_config'); RETURN pg_catalog.set_config($1, $2, $3); END $$;
CREATE FUNCTION lures.version() RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure version'); RETURN 'PostgreSQL 99'; END $$;
CREATE FUNCTION lures.pg_export_snapshot() RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure pg_export_snapshot'); RETURN 'x'; END $$;
CREATE FUNCTION lures.pg_get_userbyid(oid) RETURNS name LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure pg_get_userbyid'); RETURN pg_catalog.pg_get_userbyid($1); END $$;
CREATE FUNCTION lures.has_table_privilege(oid, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure has_table_privilege'); RETURN true; END $$;
CREATE FUNCTION lures.md5(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure md5'); RETURN 'x'; END $$;
CREATE FUNCTION lures.lo_get(oid) RETURNS bytea LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure lo_get'); RETURN ''; END $$;
CREATE FUNCTION lures.setval(regclass, bigint, boolean) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure setval'); RETURN 1; END $$;
CREATE FUNCTION lures.same_name(name, name) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure = of names'); RETURN pg_catalog.nameeq($1, $2); END $$;
CREATE FUNCTION lures.same_oid(oid, oid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure = of oids'); RETURN pg_catalog.oideq($1, $2); END $$;
CREATE FUNCTION lures.same_text(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure = of texts'); RETURN pg_catalog.texteq($1, $2); END $$;
CREATE FUNCTION lures.joined(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure ||'); RETURN pg_catalog.textcat($1, $2); END $$;
-- exact matches for mixed types, preferred even when pg_catalog comes first in the search_path
CREATE FUNCTION lures.name_is_text(name, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure ~ of name and text'); RETURN true; END $$;
CREATE FUNCTION lures.varchar_is(varchar, varchar) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure = of varchars'); RETURN $1::text OPERATOR(pg_catalog.=) $2::text; END $$;
CREATE OPERATOR lures.= (FUNCTION = lures.same_name, LEFTARG = name, RIGHTARG = name);
CREATE OPERATOR lures.= (FUNCTION = lures.same_oid, LEFTARG = oid, RIGHTARG = oid);
CREATE OPERATOR lures.= (FUNCTION = lures.same_text, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR lures.= (FUNCTION = lures.varchar_is, LEFTARG = varchar, RIGHTARG = varchar);
CREATE OPERATOR lures.|| (FUNCTION = lures.joined, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR lures.!~ (FUNCTION = lures.name_is_text, LEFTARG = name, RIGHTARG = text);
CREATE DOMAIN lures.regclass AS oid CHECK (tenant.calm_bool('lure type regclass'));
CREATE DOMAIN lures.text AS pg_catalog.varchar CHECK (tenant.calm_bool('lure type text'));
RESET search_path;
CREATE FUNCTION public.quote_literal(pg_catalog.varchar) RETURNS pg_catalog.text LANGUAGE plpgsql AS $$ BEGIN PERFORM tenant.spring('lure in public'); RETURN pg_catalog.quote_literal($1); END $$;
ALTER DATABASE :"DBNAME" SET search_path = lures, tenant, public, pg_catalog;
ALTER DATABASE :"DBNAME" SET row_security = on;
ALTER DATABASE :"DBNAME" SET standard_conforming_strings = off;
ALTER DATABASE :"DBNAME" SET backslash_quote = on;
ALTER DATABASE :"DBNAME" SET quote_all_identifiers = on;
