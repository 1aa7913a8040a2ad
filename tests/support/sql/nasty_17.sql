-- What PostgreSQL 17 added.
SET search_path = nasty, public;
CREATE TABLE identity_partitioned (id bigint GENERATED ALWAYS AS IDENTITY, k integer) PARTITION BY LIST (k);
CREATE TABLE identity_partitioned_1 PARTITION OF identity_partitioned FOR VALUES IN (1);
CREATE TABLE identity_partitioned_2 PARTITION OF identity_partitioned FOR VALUES IN (2);
INSERT INTO identity_partitioned (k) VALUES (1), (2), (1);
\if :contrib
CREATE TABLE partitioned_exclusion (k integer, during tstzrange, EXCLUDE USING gist (k WITH =, during WITH &&)) PARTITION BY LIST (k);
\endif
CREATE TABLE infinite_intervals (id integer PRIMARY KEY, i interval);
INSERT INTO infinite_intervals VALUES (1, 'infinity'), (2, '-infinity');
CREATE VIEW json_17 AS SELECT jt.* FROM documents d, JSON_TABLE(d.jb, '$.a[*]' COLUMNS (n FOR ORDINALITY, v numeric PATH '$' NULL ON ERROR)) AS jt;
CREATE VIEW merge_target AS SELECT id, name FROM tree;
GRANT MAINTAIN ON texts TO nasty_reader WITH GRANT OPTION;
\if :super
ALTER TABLE by_range SET ACCESS METHOD second_heap;
CREATE FUNCTION on_login() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM 1; END $$;
CREATE EVENT TRIGGER at_login ON login EXECUTE FUNCTION on_login();
ALTER EVENT TRIGGER at_login ENABLE ALWAYS;
\endif
