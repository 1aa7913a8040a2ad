-- What PostgreSQL 16 added.
SET search_path = nasty, public;
CREATE TABLE default_storage (a text STORAGE EXTERNAL, b text STORAGE DEFAULT COMPRESSION default);
INSERT INTO default_storage VALUES ('a', 'b');
CREATE VIEW json_sql AS SELECT JSON_OBJECT('a': 1, 'b': NULL ABSENT ON NULL) AS o, JSON_ARRAY(1, 2) AS a, '{}' IS JSON OBJECT AS i;
CREATE VIEW any_values AS SELECT any_value(id) AS a, 0b101 AS bin, 1_000 AS thousand FROM texts;
\if :icu
CREATE COLLATION icu_rules (provider = icu, locale = 'und', rules = '&a < g');
\endif
\if :super
ALTER ROLE nasty_reader SET "app.role16" = 'x';
ALTER SUBSCRIPTION far_away SET (origin = none, run_as_owner = true, password_required = false);
\endif
