-- What PostgreSQL 15 added.
SET search_path = nasty, public;
CREATE TABLE nulls_alike (a integer, b integer, UNIQUE NULLS NOT DISTINCT (a, b));
CREATE UNIQUE INDEX nulls_alike_b ON nulls_alike (b) NULLS NOT DISTINCT;
INSERT INTO nulls_alike VALUES (NULL, NULL), (1, 1);
CREATE TABLE sets_one_column (id integer PRIMARY KEY, tenant integer, b text, FOREIGN KEY (tenant, b) REFERENCES pair (a, b) ON DELETE SET NULL (b));
-- not on 14: pg_dump 15 and later write LOGGED for the sequence of such a table, which 14 cannot read
CREATE UNLOGGED TABLE unlogged_identity (n integer GENERATED ALWAYS AS IDENTITY, v text);
INSERT INTO unlogged_identity (v) VALUES ('a'), ('b');
CREATE UNLOGGED SEQUENCE unlogged_sequence;
CREATE VIEW invoker_view WITH (security_invoker = true, security_barrier = false) AS SELECT * FROM rls_plain;
CREATE PUBLICATION filtered FOR TABLE nasty.tree WHERE (id > 1 AND name <> E'it''s'), nasty.texts (id, v), nasty.by_list_ab;
\if :super
CREATE PUBLICATION whole_schema FOR TABLES IN SCHEMA "naïve schéma", nasty;
GRANT SET ON PARAMETER log_min_duration_statement TO nasty_app;
GRANT SET, ALTER SYSTEM ON PARAMETER "app.custom" TO nasty_writer WITH GRANT OPTION;
GRANT ALTER SYSTEM ON PARAMETER log_statement TO nasty_admin;
\endif
CREATE TYPE range_of_dates AS RANGE (subtype = date, multirange_type_name = "dates, many");
CREATE TABLE numeric_scale (n numeric(5, -2), f numeric(3, 5));
INSERT INTO numeric_scale VALUES (1234567, 0.00123), ('NaN', NULL);
\if :icu
CREATE COLLATION icu_15 (provider = icu, locale = 'de-u-co-phonebk');
CREATE TABLE sorted_by_icu (v text COLLATE "日本語順", w text COLLATE ignore_case UNIQUE);
INSERT INTO sorted_by_icu VALUES ('あ', 'A'), ('ア', 'b');
\endif
