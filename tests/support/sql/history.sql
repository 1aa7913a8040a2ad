-- Tables of every kind that an incremental backup may misjudge. Filled here; tests/support/history_steps.py changes them.
SET synchronous_commit = off;
CREATE SCHEMA other;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN feeling AS mood;
CREATE TYPE pair AS (a int, b mood);
CREATE TABLE shape (x int, y text);
CREATE FUNCTION named(int) RETURNS int LANGUAGE sql AS 'SELECT $1';

CREATE TABLE wide (id int PRIMARY KEY, note varchar(40) DEFAULT 'new', body text, more text);
ALTER TABLE wide ALTER COLUMN more SET STORAGE EXTERNAL;
INSERT INTO wide SELECT g, 'first', repeat(md5(g::text), 45) FROM generate_series(1, 1000) g;
INSERT INTO wide SELECT g, 'toasted', 'short', (SELECT string_agg(md5(g || ' ' || i), '') FROM generate_series(1, 300) i)
FROM generate_series(1001, 1030) g;
CREATE INDEX wide_note ON wide (note);

-- several ranges, no primary key, no index: rewritten, truncated, loaded again
CREATE TABLE heap (id int, note text, body text);
INSERT INTO heap SELECT g, 'first', repeat(md5((g % 50)::text), 40) FROM generate_series(1, 500) g;

CREATE TABLE counter (id int PRIMARY KEY, hits bigint DEFAULT 0, note text DEFAULT '-') WITH (fillfactor = 40);
INSERT INTO counter SELECT g FROM generate_series(1, 300) g;

-- equal rows
CREATE TABLE nopk (id int, note text);
INSERT INTO nopk SELECT g % 7, 'same' FROM generate_series(1, 200) g;

CREATE TABLE kinds (id int PRIMARY KEY, note text, m mood DEFAULT 'ok', ms mood[] DEFAULT '{sad,glad}', f feeling DEFAULT 'ok',
                    d positive DEFAULT 1, p pair DEFAULT '(1,ok)', ps pair[] DEFAULT '{"(2,sad)"}', s shape DEFAULT '(1,x)',
                    t timestamp DEFAULT '2026-01-01', g int GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO kinds (id, note) SELECT g, 'first' FROM generate_series(1, 150) g;

-- text of these follows names elsewhere
CREATE TABLE small (id int PRIMARY KEY, note text);
INSERT INTO small SELECT g, 'first' FROM generate_series(1, 20) g;
CREATE TABLE names (id int PRIMARY KEY, note text, r regclass, rs regclass[], f regprocedure, t regtype, n regnamespace);
INSERT INTO names SELECT g, 'first', 'small', '{small,wide}', 'named(int)', 'mood', 'other' FROM generate_series(1, 40) g;
CREATE TABLE child (id int PRIMARY KEY, note text, small_id int REFERENCES small DEFERRABLE INITIALLY DEFERRED);

CREATE TABLE parts (id int, note text, region int NOT NULL DEFAULT 1) PARTITION BY RANGE (region);
CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE part_2 (region int NOT NULL DEFAULT 15, gone int, id int, note text);
ALTER TABLE part_2 DROP COLUMN gone;
ALTER TABLE parts ATTACH PARTITION part_2 FOR VALUES FROM (10) TO (20);
CREATE TABLE part_rest PARTITION OF parts DEFAULT;
INSERT INTO parts SELECT g, repeat('p', 100), g % 30 FROM generate_series(1, 600) g;

CREATE TABLE mother (id int, note text);
CREATE TABLE daughter (extra text DEFAULT 'e') INHERITS (mother);
INSERT INTO mother SELECT g, 'm' FROM generate_series(1, 30) g;
INSERT INTO daughter SELECT g, 'd' FROM generate_series(31, 60) g;

CREATE TABLE swap_a (id int, note text);
CREATE TABLE swap_b (id int, note text);
INSERT INTO swap_a SELECT g, 'a' FROM generate_series(1, 100) g;
INSERT INTO swap_b SELECT g, 'b' FROM generate_series(1, 100) g;

CREATE UNLOGGED TABLE fleeting (id int, note text);
INSERT INTO fleeting SELECT g, 'u' FROM generate_series(1, 80) g;

SELECT lo_from_bytea(4000 + g, decode(repeat(md5(g::text), 100), 'hex')) FROM generate_series(1, 5) g;
ANALYZE;
