-- Functions, procedures, aggregates, views, materialized views, rules, triggers, event triggers.
-- Variables: super, contrib (bool).

SET search_path = nasty, public;

-- functions -----------------------------------------------------------------------------------------------------------
CREATE FUNCTION sql_body(a integer, b integer DEFAULT 2) RETURNS integer LANGUAGE sql IMMUTABLE
    BEGIN ATOMIC SELECT a + b; SELECT a * b + (SELECT count(*) FROM nasty.texts)::integer * 0; END;
CREATE FUNCTION sql_return(a integer) RETURNS integer LANGUAGE sql IMMUTABLE RETURN a * 2 + nasty.mood_to_int('ok'::nasty.mood);
CREATE FUNCTION looks_like_ddl() RETURNS text LANGUAGE plpgsql AS $outer$
-- Name: texts; Type: TABLE; Schema: nasty; Owner: postgres
BEGIN
    RETURN $inner$
--
-- PostgreSQL database dump
--
CREATE TABLE public.not_a_table (id integer);
ALTER TABLE public.not_a_table OWNER TO postgres;
GRANT ALL ON TABLE public.not_a_table TO PUBLIC;
\restrict token
\connect other
\! touch /tmp/never
COPY public.not_a_table (id) FROM stdin;
1
\.
CREATE POLICY p ON public.not_a_table;
$inner$;
END
$outer$;
CREATE FUNCTION old_quotes() RETURNS text LANGUAGE sql AS 'SELECT ''it''''s \ $$ $outer$''; -- GRANT ALL';
CREATE FUNCTION "Quoted Fn"("Arg One" integer, OUT "out" text, INOUT "both" integer, VARIADIC rest text[]) LANGUAGE sql
    AS $$ SELECT "Arg One"::text || array_to_string(rest, ','), "both" $$;
CREATE FUNCTION overloaded(integer) RETURNS text LANGUAGE sql AS $$ SELECT 'integer' $$;
CREATE FUNCTION overloaded(text) RETURNS text LANGUAGE sql AS $$ SELECT 'text' $$;
CREATE FUNCTION overloaded(integer[]) RETURNS text LANGUAGE sql AS $$ SELECT 'array' $$;
CREATE FUNCTION overloaded() RETURNS SETOF nasty.texts LANGUAGE sql STABLE ROWS 7 COST 3 AS $$ SELECT * FROM nasty.texts $$;
CREATE FUNCTION with_settings() RETURNS text LANGUAGE plpgsql SECURITY DEFINER STRICT STABLE PARALLEL RESTRICTED
    SET search_path = nasty, "naïve schéma", pg_temp SET work_mem TO '1MB' SET DateStyle FROM CURRENT
    AS $$ BEGIN RETURN current_setting('search_path'); END $$;
CREATE FUNCTION returns_table(n integer DEFAULT 3) RETURNS TABLE (id integer, "t ext" text) LANGUAGE sql AS $$ SELECT g, 't' || g FROM generate_series(1, n) g $$;
CREATE FUNCTION polymorphic(anyelement, anycompatible, anycompatiblearray) RETURNS anyelement LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION needs_search_path(i integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT i > 0 $$;
CREATE FUNCTION from_table_row(t nasty.texts) RETURNS text LANGUAGE sql STABLE AS $$ SELECT t.v $$;
CREATE FUNCTION "日本語関数"("引数" text) RETURNS text LANGUAGE sql AS $$ SELECT '「' || "引数" || '」' $$;
CREATE FUNCTION window_row() RETURNS bigint LANGUAGE sql AS $$ SELECT 1::bigint $$;
\if :super
CREATE FUNCTION my_row_number() RETURNS bigint LANGUAGE internal WINDOW IMMUTABLE AS 'window_row_number';
ALTER FUNCTION point3_lt(point3, point3) LEAKPROOF;
ALTER FUNCTION returns_table(integer) SET "app.x" = E'a, b''c"\\';
CREATE FUNCTION in_second_language() RETURNS integer LANGUAGE second_plpgsql AS $$ BEGIN RETURN 1; END $$;
\endif
CREATE PROCEDURE log_lesson(IN what text, INOUT n integer DEFAULT 1) LANGUAGE plpgsql AS $$ BEGIN n := n + 1; COMMIT; END $$;
CREATE PROCEDURE atomic_procedure(a integer) BEGIN ATOMIC INSERT INTO nasty.empty_table VALUES (a); DELETE FROM nasty.empty_table; END;
CREATE AGGREGATE longest(text) (SFUNC = textcat, STYPE = text, INITCOND = '', PARALLEL = SAFE);
CREATE FUNCTION moving_add(double precision, double precision) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT $1 + $2 $$;
CREATE AGGREGATE moving_sum(double precision) (SFUNC = moving_add, STYPE = double precision, INITCOND = '0', COMBINEFUNC = moving_add,
    MSFUNC = moving_add, MINVFUNC = mood_distance, MSTYPE = double precision, MINITCOND = '0', SORTOP = >);
CREATE AGGREGATE count_all(*) (SFUNC = int8inc, STYPE = bigint, INITCOND = '0');
\if :super
CREATE AGGREGATE "ordered set"(double precision ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal, FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA);
\endif
COMMENT ON FUNCTION looks_like_ddl() IS E'comment --\n-- Name: x; Type: TABLE\nDROP TABLE x;';
COMMENT ON PROCEDURE log_lesson(text, integer) IS 'a procedure';
COMMENT ON AGGREGATE longest(text) IS 'an aggregate';

-- functions used by defaults, checks, indexes and generated columns of tables
CREATE FUNCTION next_code(prefix text) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT prefix || nextval('nasty.used_once') $$;
CREATE FUNCTION is_good(v text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN v IS NULL OR v <> 'bad'; END $$;
CREATE FUNCTION normal_form(v text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower(trim(v)) $$;
CREATE TABLE uses_functions (
    id integer PRIMARY KEY, code text DEFAULT nasty.next_code('c-'), v text CHECK (nasty.is_good(v)),
    folded text GENERATED ALWAYS AS (nasty.normal_form(v)) STORED,
    doubled integer DEFAULT nasty.sql_return(21)
);
CREATE UNIQUE INDEX uses_functions_folded ON uses_functions (nasty.normal_form(v));
INSERT INTO uses_functions (id, v) VALUES (1, ' One '), (2, 'TWO'), (3, NULL);

-- views ---------------------------------------------------------------------------------------------------------------
CREATE VIEW simple_view AS SELECT * FROM texts WHERE id > 0;
CREATE VIEW on_view ("ID renamed", v, extra) WITH (security_barrier) AS SELECT id, v, sql_body(id) FROM simple_view;
CREATE VIEW checked_view AS SELECT id, name FROM tree WHERE id > 0 WITH LOCAL CHECK OPTION;
CREATE VIEW cascaded_view AS SELECT * FROM checked_view WHERE id < 1000 WITH CASCADED CHECK OPTION;
CREATE RECURSIVE VIEW tree_path (id, path) AS
    SELECT id, name FROM tree WHERE parent_id IS NULL
    UNION ALL SELECT t.id, p.path || ' / ' || t.name FROM tree t JOIN tree_path p ON t.parent_id = p.id AND t.id <> t.parent_id;
CREATE VIEW "ビュー 'quoted'" AS SELECT "日本語関数"("名前") AS "名", E'\\.\n' AS "end
mark" FROM "日本語の表";
CREATE VIEW with_grouping AS SELECT id, v, count(*) AS n FROM texts GROUP BY id;
CREATE VIEW with_everything AS
    SELECT t.id, row_number() OVER w AS r, x.n, longest(t.v) FILTER (WHERE t.id > 1) OVER w AS l
    FROM texts t LEFT JOIN LATERAL (SELECT count(*) AS n FROM lists l WHERE l.id = t.id) x ON true, returns_table(2) WITH ORDINALITY AS rt (a, b, c)
    WHERE t.v ~ '^a' OR t.v IS DISTINCT FROM 'b' WINDOW w AS (PARTITION BY t.id ORDER BY t.v COLLATE "C" DESC NULLS LAST ROWS BETWEEN 1 PRECEDING AND CURRENT ROW);
CREATE VIEW dropped_beneath AS SELECT * FROM holes;
ALTER VIEW simple_view ALTER COLUMN v SET DEFAULT 'view default';
CREATE VIEW no_columns_view AS SELECT FROM no_columns;
CREATE VIEW circle_view AS SELECT 1 AS a, NULL::text AS b;
CREATE FUNCTION reads_circle() RETURNS SETOF circle_view LANGUAGE sql AS $$ SELECT 2, 'x' $$;
CREATE OR REPLACE VIEW circle_view AS SELECT 1 AS a, (SELECT max(b) FROM reads_circle()) AS b;
COMMENT ON VIEW simple_view IS 'a view';
COMMENT ON COLUMN on_view."ID renamed" IS 'a column of a view';

CREATE MATERIALIZED VIEW totals AS SELECT m, count(*) AS n FROM by_enum_hash GROUP BY m;
CREATE UNIQUE INDEX totals_m ON totals (m);
CREATE MATERIALIZED VIEW totals_of_totals WITH (fillfactor = 50) AS SELECT sum(n) AS all_rows, sql_return(1) AS two FROM totals;
CREATE MATERIALIZED VIEW aaa_sorts_first AS SELECT * FROM totals_of_totals;
CREATE MATERIALIZED VIEW never_populated AS SELECT * FROM totals WITH NO DATA;
CREATE VIEW over_materialized AS SELECT * FROM totals NATURAL JOIN (SELECT m FROM by_enum_hash) AS x;
CREATE MATERIALIZED VIEW unpopulated_chain AS SELECT count(*) FROM totals WITH NO DATA;
COMMENT ON MATERIALIZED VIEW totals IS 'a materialized view';

-- rules ---------------------------------------------------------------------------------------------------------------
CREATE VIEW ruled AS SELECT id, name FROM tree;
CREATE RULE ruled_insert AS ON INSERT TO ruled DO INSTEAD INSERT INTO tree (id, name) VALUES (NEW.id, NEW.name) RETURNING id, name;
CREATE RULE ruled_delete AS ON DELETE TO ruled WHERE OLD.id > 5 DO INSTEAD DELETE FROM tree WHERE id = OLD.id;
CREATE RULE ruled_delete_also AS ON DELETE TO ruled DO ALSO NOTIFY deleted;
CREATE RULE ruled_update AS ON UPDATE TO ruled DO INSTEAD (UPDATE tree SET name = NEW.name WHERE id = OLD.id; SELECT 1);
CREATE TABLE rule_table (id integer);
CREATE RULE no_delete AS ON DELETE TO rule_table DO INSTEAD NOTHING;
CREATE RULE silent_insert AS ON INSERT TO rule_table WHERE NEW.id < 0 DO INSTEAD NOTHING;
ALTER TABLE rule_table DISABLE RULE silent_insert;
INSERT INTO rule_table VALUES (1), (-1);
ALTER TABLE rule_table ENABLE ALWAYS RULE silent_insert;
COMMENT ON RULE no_delete ON rule_table IS 'a rule';

-- triggers ------------------------------------------------------------------------------------------------------------
CREATE TABLE fired (n integer GENERATED ALWAYS AS IDENTITY, what text);
CREATE TABLE watched (id integer PRIMARY KEY, a text, "b c" text, updated_at timestamptz);
CREATE FUNCTION record_fire() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO nasty.fired (what) VALUES (TG_NAME || ' ' || TG_WHEN || ' ' || TG_OP || ' ' || TG_LEVEL || coalesce(' ' || TG_ARGV[0], ''));
    RETURN coalesce(NEW, OLD);
END $$;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused by trigger %', TG_NAME; END $$;
CREATE TRIGGER before_row BEFORE INSERT OR UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION record_fire();
CREATE TRIGGER after_row AFTER INSERT OR DELETE ON watched FOR EACH ROW EXECUTE FUNCTION record_fire('arg', E'it''s \\ "two"');
CREATE TRIGGER after_statement AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON watched FOR EACH STATEMENT EXECUTE FUNCTION record_fire();
CREATE TRIGGER update_of AFTER UPDATE OF a, "b c" ON watched FOR EACH ROW WHEN (OLD.a IS DISTINCT FROM NEW.a AND NEW."b c" <> 'x') EXECUTE FUNCTION record_fire();
CREATE TRIGGER with_tables AFTER UPDATE ON watched REFERENCING OLD TABLE AS old_rows NEW TABLE AS "new rows" FOR EACH STATEMENT EXECUTE FUNCTION record_fire();
CREATE CONSTRAINT TRIGGER constraint_trigger AFTER INSERT ON watched DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION record_fire();
CREATE CONSTRAINT TRIGGER from_table AFTER DELETE ON watched FROM tree FOR EACH ROW EXECUTE FUNCTION record_fire();
CREATE TRIGGER "disabled ""one""" BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION refuse();
ALTER TABLE watched DISABLE TRIGGER "disabled ""one""";
CREATE TRIGGER replica_only BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION refuse();
ALTER TABLE watched ENABLE REPLICA TRIGGER replica_only;
INSERT INTO watched VALUES (1, 'a', 'b', '2026-01-01 00:00+00'), (2, NULL, NULL, NULL);
UPDATE watched SET a = 'changed' WHERE id = 1;
CREATE TRIGGER always_fires AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION record_fire();
ALTER TABLE watched ENABLE ALWAYS TRIGGER always_fires;
-- rows that the triggers of today would refuse: a restore that fires them fails
CREATE TABLE guarded (id integer PRIMARY KEY, v text);
INSERT INTO guarded VALUES (1, 'older than the guard'), (2, 'as well');
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON guarded FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON guarded FOR EACH STATEMENT EXECUTE FUNCTION refuse();
CREATE TRIGGER view_insert INSTEAD OF INSERT ON with_grouping FOR EACH ROW EXECUTE FUNCTION record_fire();
CREATE TRIGGER on_partitioned AFTER INSERT ON by_range FOR EACH ROW EXECUTE FUNCTION record_fire();
ALTER TABLE by_range_2025 DISABLE TRIGGER on_partitioned;
CREATE TRIGGER only_this_partition BEFORE INSERT ON by_range_2026 FOR EACH ROW EXECUTE FUNCTION record_fire();
COMMENT ON TRIGGER before_row ON watched IS 'a trigger';

\if :super
CREATE TABLE ddl_seen (n integer GENERATED ALWAYS AS IDENTITY, tag text);
CREATE FUNCTION see_ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO nasty.ddl_seen (tag) VALUES (TG_TAG); END $$;
CREATE FUNCTION refuse_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no DDL here: %', TG_TAG; END $$;
CREATE EVENT TRIGGER see_everything ON ddl_command_end EXECUTE FUNCTION see_ddl();
CREATE EVENT TRIGGER "refuse some" ON ddl_command_start WHEN TAG IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION refuse_ddl();
ALTER EVENT TRIGGER "refuse some" DISABLE;
CREATE EVENT TRIGGER on_drop ON sql_drop EXECUTE FUNCTION see_ddl();
ALTER EVENT TRIGGER on_drop ENABLE ALWAYS;
CREATE EVENT TRIGGER on_rewrite ON table_rewrite EXECUTE FUNCTION refuse_ddl();
ALTER EVENT TRIGGER on_rewrite ENABLE REPLICA;
COMMENT ON EVENT TRIGGER on_drop IS 'an event trigger';
\endif
