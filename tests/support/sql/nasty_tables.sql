-- Tables: names, values, storage, partitions, inheritance, constraints, sequences.
-- Variables: super, contrib, icu, xml (bool).

SET search_path = nasty, public;

-- names ---------------------------------------------------------------------------------------------------------------
CREATE TABLE "Mixed Case" ("ID" integer PRIMARY KEY, "select" text, "a.b" text, "ta	b" text, "new
line" text, "back\slash" text, "quo""te" text, "dollar$1 $$" text, "日本語の列" text, "🎉" text, " lead" text, "trail " text);
INSERT INTO "Mixed Case" VALUES (1, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'ひらがな', '🎉🎊', ' ', E'\t');
INSERT INTO "Mixed Case" ("ID") VALUES (2);
CREATE TABLE "tab	le" (id integer);
CREATE TABLE "new
line" (id integer);
CREATE TABLE "back\slash \. end" (id integer);
CREATE TABLE "quo""te'single" (id integer);
CREATE TABLE "semi; DROP TABLE x; --" (id integer);
CREATE TABLE "$body$" ("$1" integer, "%s" text, "{0}" text, ":name" text, "@x" text, "--" text, "/* */" text);
CREATE TABLE "日本語の表" ("番号" integer PRIMARY KEY, "名前" text NOT NULL);
CREATE TABLE "日本語スキーマ"."予約" ("番号" integer PRIMARY KEY, "状態" "Reservation Status" NOT NULL DEFAULT 'pending');
CREATE TABLE "quo""te.dot $x"."a.b""c" (id integer PRIMARY KEY, v text);
-- 63 bytes exactly: ASCII, and 21 characters of three bytes
CREATE TABLE "x23456789012345678901234567890123456789012345678901234567890123" ("y23456789012345678901234567890123456789012345678901234567890123" integer PRIMARY KEY);
CREATE TABLE "表一二三四五六七八九十百千万億兆京垓秭穣溝" ("列一二三四五六七八九十百千万億兆京垓秭穣溝" integer);
INSERT INTO "tab	le" VALUES (1);
INSERT INTO "new
line" VALUES (1);
INSERT INTO "back\slash \. end" VALUES (1);
INSERT INTO "quo""te'single" VALUES (1);
INSERT INTO "semi; DROP TABLE x; --" VALUES (1);
INSERT INTO "$body$" VALUES (1, '%s', '{0}', ':name', '@x', '--', '/* */');
INSERT INTO "日本語の表" VALUES (1, '田中'), (2, E'タブ\t改行\n');
INSERT INTO "日本語スキーマ"."予約" VALUES (1, 'approved');
INSERT INTO "quo""te.dot $x"."a.b""c" VALUES (1, 'v');
INSERT INTO "x23456789012345678901234567890123456789012345678901234567890123" VALUES (1);
INSERT INTO "表一二三四五六七八九十百千万億兆京垓秭穣溝" VALUES (1);
CREATE TABLE "Table" ("Column" integer);
CREATE TABLE "table" ("column" integer, "Column" integer, "COLUMN" integer);

-- values --------------------------------------------------------------------------------------------------------------
CREATE TABLE texts (id integer PRIMARY KEY, v text);
INSERT INTO texts VALUES
    (1, NULL), (2, ''), (3, '\.'), (4, E'\\N'), (5, E'\t'), (6, E'\n'), (7, E'\r'), (8, E'\r\n'), (9, E'a\n\\.\nb'),
    (10, 'NULL'), (11, 'null'), (12, ' '), (13, E'\b\f\v'), (14, '🎉👨‍👩‍👧‍👦'), (15, '日本語'), (16, E'\\'), (17, E'\\\\'), (18, E'\\n'),
    (19, E'\u0001\u001f\u007f\u0080\u00a0\ufeff\u2028'), (20, 'e' || U&'\0301'), (21, 'é'), (22, repeat('long ', 20000)),
    (23, ''''), (24, '"'), (25, '$$'), (26, '$body$'), (27, ';'), (28, '-- comment'), (29, '/* open'), (30, E'\\copy x'), (31, '\! id'),
    (32, repeat('あ', 3000)), (33, '(1,"a")'), (34, '{1,NULL}'), (35, E'trailing\\');
CREATE TABLE numbers (id integer PRIMARY KEY, f4 real, f8 double precision, n numeric, n2 numeric(10,3), i2 smallint, i8 bigint, m money);
INSERT INTO numbers VALUES
    (1, 'NaN', 'NaN', 'NaN', 'NaN', -32768, -9223372036854775808, '-92233720368547758.08'),
    (2, 'Infinity', 'Infinity', 'Infinity', 0, 32767, 9223372036854775807, '92233720368547758.07'),
    (3, '-Infinity', '-Infinity', '-Infinity', -0.001, 0, 0, 0),
    (4, '-0', '-0', '-0.00', 0.000, 0, 0, 0),
    (5, '0', '0', '0', 0, 0, 0, 0),
    (6, 1.17549435e-38, 2.2250738585072014e-308, 1e-1000, 1, 1, 1, 1),
    (7, 3.4028235e38, 1.7976931348623157e308, 1e1000, 9999999.999, 1, 1, 1),
    (8, 1e-45, 5e-324, 1.0, 1, 1, 1, 1), (9, 0.1, 0.1, 1.00, 1, 1, 1, 1), (10, 0.30000001, 0.30000000000000004, 1.000, 1, 1, 1, 1),
    (11, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE moments (id integer PRIMARY KEY, d date, t time, tz time with time zone, ts timestamp, tstz timestamptz, i interval, i2 interval year to month);
INSERT INTO moments VALUES
    (1, 'infinity', '24:00', '24:00:00+15:59', 'infinity', 'infinity', '178000000 years', '3 years 2 months'),
    (2, '-infinity', '00:00', '00:00:00-15:59', '-infinity', '-infinity', '-178000000 years', NULL),
    (3, '4713-01-01 BC', '23:59:59.999999', '12:00+09', '4713-01-01 00:00:00 BC', '4713-01-02 00:00:00+00 BC', '1 mon', NULL),
    (4, '5874897-12-31', '01:02:03.000001', '12:00:00+05:30:15', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', '30 days', NULL),
    (5, '2000-02-29', '12:00', '12:00+00', '2026-03-08 02:30:00', '2026-11-01 01:30:00-04', '720:00:00', NULL),
    (6, '0001-01-01', '12:00', '12:00+00', '1582-10-04', '1883-11-18 12:03:58-04:56:02', '-1 year -2 mons +3 days -04:05:06.000007', NULL),
    (7, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE bits_and_bytes (id integer PRIMARY KEY, b bytea, bt bit(5), bv bit varying, u uuid, c "char", cn char(5), vc varchar(5), nm name);
INSERT INTO bits_and_bytes VALUES
    (1, '', '00000', '', '00000000-0000-0000-0000-000000000000', 'a', '', '', ''),
    (2, '\x00', '11111', '1', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '', 'a', 'ab ', 'name'),
    (3, '\x000102ff5c5c0a0d09', '10101', repeat('10', 500)::bit varying, gen_random_uuid(), '\377', 'abcde', '日本', '63'),
    (4, decode(repeat('5c', 100000), 'hex'), NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE documents (id integer PRIMARY KEY, j json, jb jsonb, x text, tv tsvector, tq tsquery, jp jsonpath);
INSERT INTO documents VALUES
    (1, '{"b":1, "a" : [1.0,1.00, null], "a":2}', '{"b":1, "a":[1.0,1.00,null], "é":"\u3042\\n"}', '<a/>', 'fat:2A,3 cat:1', 'fat & (cat | rat) & !dog', '$.a[*] ? (@ > 1)'),
    (2, 'null', 'null', '', '', '', 'lax $'), (3, '"\u0041"', '-0', NULL, '''it''''s'':1', '''a b'' <-> c', 'strict $.**'),
    (4, NULL, NULL, NULL, NULL, NULL, NULL), (5, '[]', '1e400', NULL, NULL, NULL, NULL);
\if :xml
CREATE TABLE xml_documents (id integer PRIMARY KEY, x xml);
INSERT INTO xml_documents VALUES (1, '<a b="c">d &amp; e</a>'), (2, 'plain content <b/> and more'), (3, '<?xml version="1.0"?><r/>'), (4, '');
\endif
CREATE TABLE lists (id integer PRIMARY KEY, a integer[], t text[], tt text[][], m mood[], c point3[], w "weird composite", p point3, e empty_enum[], d tag_list);
INSERT INTO lists VALUES
    (1, '{}', '{}', '{}', '{}', '{}', NULL, NULL, '{}', '{}'),
    (2, '{1,NULL,3}', ARRAY['', NULL, 'NULL', 'a,b', '"', '\', '{', E'\n', ' '], '{{a,b},{c,NULL}}', '{SAD,"it''s \"fine\"",喜び🎉}',
        ARRAY[ROW(1, 2, 3)::point3, NULL, ROW('NaN', '-0', 'Infinity')::point3], ROW(1, E'x,"y"\n', '{meh}', ROW(1, NULL, 3)::point3), ROW(NULL, NULL, NULL), NULL, '{a}'),
    (3, '[-2:0]={7,8,9}', '[0:1]={a,b}', '[2:3][0:1]={{1,2},{3,4}}', NULL, NULL, ROW(NULL, '', '{}', NULL), ROW(1, 2, 3), NULL, NULL);
CREATE TABLE spans (id integer PRIMARY KEY, i int4range, n numrange, ts tstzrange, d daterange, f float_range, t text_range, m mood_range,
                    im int4multirange, fm float_multi);
INSERT INTO spans VALUES
    (1, 'empty', 'empty', 'empty', 'empty', 'empty', 'empty', 'empty', '{}', '{}'),
    (2, '[1,5]', '(,1.50]', '[2026-01-01 00:00+00,infinity)', '(,)', '[-Infinity,NaN)', '["","a,b"]', '[SAD,happy)', '{[1,2),[5,9)}', '{[1,1.5),(2,3]}'),
    (3, NULL, '[1,1]', '(,2026-01-01 09:00+09]', '[-infinity,infinity]', NULL, '("\"",)', '[ok,)', NULL, NULL);
CREATE TABLE addresses (id integer PRIMARY KEY, i inet, c cidr, m macaddr, m8 macaddr8, p point, l line, s lseg, b box, pa path, po polygon, ci circle, lsn pg_lsn, xs pg_snapshot, o oid, x xid8);
INSERT INTO addresses VALUES
    (1, '::1', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '(NaN,-0)', '{1,2,3}', '[(0,0),(1,1)]', '((0,0),(1,1))', '[(0,0),(1,1)]', '((0,0),(1,1),(1,0))', '<(0,0),1>', '16/B374D848', '10:20:10,14,15', 4294967295, '18446744073709551615'),
    (2, '192.168.0.1/24', '::/0', NULL, NULL, '(Infinity,1e300)', NULL, NULL, NULL, '((0,0),(1,1))', NULL, NULL, '0/0', NULL, 0, '0');
CREATE TABLE registered (id integer PRIMARY KEY, c regclass, p regprocedure, t regtype, r regrole, n regnamespace, o regoperator, f regconfig);
INSERT INTO registered VALUES (1, 'nasty.texts', 'nasty.point3_norm(nasty.point3)', 'nasty.mood', 'nasty_reader', '"naïve schéma"', '===(nasty.point3,nasty.point3)', 'nasty.lesson_search'),
    (2, 'pg_class', 'lower(text)', 'integer[]', 'nasty_app', 'public', '=(integer,integer)', 'english'), (3, 0, 0, 0, 0, 0, 0, 0);
CREATE TABLE domains (id integer PRIMARY KEY, a positive, b small_positive, c "mail address", d origin_point, e tag_list);
INSERT INTO domains VALUES (1, DEFAULT, 999, 'a@b', ROW(1, 2, 3), '{x}'), (2, 7, 1, NULL, NULL, NULL);
\if :super
CREATE TABLE base_numbers (id integer PRIMARY KEY, n base_number);
INSERT INTO base_numbers VALUES (1, '7'), (2, '-1');
CREATE TABLE point3_indexed (p point3);
CREATE INDEX point3_btree ON point3_indexed (p point3_ops);
INSERT INTO point3_indexed VALUES (ROW(1, 2, 3)), (ROW(0, 0, 0));
CREATE TABLE in_second_heap (id integer PRIMARY KEY, v text) USING second_heap;
INSERT INTO in_second_heap SELECT g, 'v' || g FROM generate_series(1, 50) g;
\endif
\if :contrib
CREATE TABLE contrib_values (id integer PRIMARY KEY, h extensions.hstore, c extensions.citext UNIQUE, u uuid DEFAULT extensions.uuid_generate_v4(), l ltree, secret bytea);
INSERT INTO contrib_values VALUES (1, 'a=>1,"b c"=>NULL,"\"q\""=>"\\"', 'MiXeD', '11111111-2222-3333-4444-555555555555', 'a.b.c', extensions.digest('x', 'sha256')), (2, '', NULL, NULL, '', NULL);
CREATE INDEX contrib_trgm ON texts USING gin (v extensions.gin_trgm_ops) WHERE length(v) < 1000;
\endif

-- columns: none, dropped, fast defaults, storage ----------------------------------------------------------------------
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE all_dropped (a integer, b text);
INSERT INTO all_dropped VALUES (1, 'x'), (2, 'y');
ALTER TABLE all_dropped DROP COLUMN a, DROP COLUMN b;
CREATE TABLE holes (a integer, gone1 text, b text, gone2 integer, c integer DEFAULT 5);
INSERT INTO holes VALUES (1, 'gone', 'kept', 9);
ALTER TABLE holes DROP COLUMN gone1, DROP COLUMN gone2;
INSERT INTO holes VALUES (2, 'after', DEFAULT);
ALTER TABLE holes ADD COLUMN d text DEFAULT 'fast default', ADD COLUMN e timestamptz DEFAULT '2026-01-01 00:00+00', ADD COLUMN f integer;
INSERT INTO holes (a, d) VALUES (3, NULL);
ALTER TABLE holes ALTER COLUMN d SET DEFAULT 'changed later';
INSERT INTO holes (a) VALUES (4);
CREATE TABLE no_key (a integer, b text);
INSERT INTO no_key VALUES (1, 'same'), (1, 'same'), (1, 'same'), (NULL, NULL), (NULL, NULL), (1, '');
CREATE UNLOGGED TABLE unlogged_cache (k text PRIMARY KEY, v jsonb);
INSERT INTO unlogged_cache (k, v) VALUES ('a', '{}'), ('b', '[]');
CREATE TABLE empty_table (id integer PRIMARY KEY);
CREATE TABLE tuned (
    id bigint NOT NULL,
    plain text, ext text COMPRESSION pglz, main text, extended text DEFAULT 'x' || 'y',
    stat integer, opts integer
) WITH (fillfactor = 70, autovacuum_enabled = false, toast.autovacuum_enabled = false, parallel_workers = 3, toast_tuple_target = 256);
ALTER TABLE tuned ALTER plain SET STORAGE PLAIN, ALTER ext SET STORAGE EXTERNAL, ALTER main SET STORAGE MAIN,
    ALTER stat SET STATISTICS 500, ALTER opts SET (n_distinct = -0.5, n_distinct_inherited = 100);
INSERT INTO tuned SELECT g, 'p', repeat('e', 5000), repeat('m', 3000), repeat('x', 10000), g, g FROM generate_series(1, 20) g;
ALTER TABLE tuned ADD CONSTRAINT tuned_key PRIMARY KEY (id) INCLUDE (stat) WITH (fillfactor = 60);
CREATE INDEX tuned_expression ON tuned ((stat + 1), lower(main) COLLATE "C" text_pattern_ops DESC NULLS LAST) WHERE stat > 5;
ALTER INDEX tuned_expression ALTER COLUMN 1 SET STATISTICS 300;
CREATE INDEX tuned_hash ON tuned USING hash (stat);
CREATE INDEX tuned_brin ON tuned USING brin (id) WITH (pages_per_range = 8);
CREATE INDEX lists_gin ON lists USING gin (t) WITH (fastupdate = off);
CREATE INDEX spans_gist ON spans USING gist (i);
CREATE INDEX addresses_spgist ON addresses USING spgist (i);
ALTER TABLE tuned CLUSTER ON tuned_key;
CREATE TABLE generated (id integer PRIMARY KEY, a integer, b integer GENERATED ALWAYS AS (a * 2) STORED, label text GENERATED ALWAYS AS ('n' || id::text) STORED, tail text);
INSERT INTO generated (id, a, tail) VALUES (1, 10, 'x'), (2, NULL, ''), (3, -5, NULL);
CREATE TABLE from_composite OF point3 (x NOT NULL, PRIMARY KEY (x), z DEFAULT 9);
INSERT INTO from_composite VALUES (1, 2, DEFAULT), (2, 3, 4);

-- sequences and identities --------------------------------------------------------------------------------------------
CREATE SEQUENCE never_used START 100 INCREMENT 5;
CREATE SEQUENCE used_once;
SELECT nextval('used_once');
CREATE SEQUENCE set_uncalled;
SELECT setval('set_uncalled', 77, false);
CREATE SEQUENCE descending AS smallint INCREMENT -3 MINVALUE -3000 MAXVALUE 10 START 10 CACHE 4 CYCLE;
SELECT nextval('descending'), nextval('descending');
CREATE SEQUENCE exhausted MAXVALUE 2;
SELECT nextval('exhausted'), nextval('exhausted');
CREATE SEQUENCE "naïve schéma"."Quoted Seq" AS integer;
SELECT nextval('"naïve schéma"."Quoted Seq"') FROM generate_series(1, 41);
CREATE TABLE serials (a serial PRIMARY KEY, b bigserial, c smallserial, d integer DEFAULT nextval('"naïve schéma"."Quoted Seq"'),
    always bigint GENERATED ALWAYS AS IDENTITY (START 1000 INCREMENT 10 CACHE 3));
INSERT INTO serials (d) VALUES (1), (2), (DEFAULT);
INSERT INTO serials DEFAULT VALUES;
ALTER SEQUENCE used_once OWNED BY serials.d;
CREATE TABLE by_default (id integer GENERATED BY DEFAULT AS IDENTITY (SEQUENCE NAME nasty."identity 連番" START -5 MINVALUE -10) PRIMARY KEY, v text);
INSERT INTO by_default (v) VALUES ('a'), ('b');
INSERT INTO by_default VALUES (500, 'explicit');
CREATE TABLE always_identity (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
INSERT INTO always_identity (v) VALUES ('a'), ('b');
INSERT INTO always_identity OVERRIDING SYSTEM VALUE VALUES (-7, 'overridden');

-- partitions ----------------------------------------------------------------------------------------------------------
CREATE TABLE by_range (id integer NOT NULL, at date NOT NULL, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE by_range_2025 PARTITION OF by_range FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
CREATE TABLE by_range_2026 (v text, extra_dropped integer, at date NOT NULL, id integer NOT NULL);
ALTER TABLE by_range_2026 DROP COLUMN extra_dropped;
ALTER TABLE by_range ATTACH PARTITION by_range_2026 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE by_range_default PARTITION OF by_range DEFAULT;
CREATE TABLE by_range_detached (LIKE by_range INCLUDING ALL);
INSERT INTO by_range SELECT g, date '2024-06-01' + g * 20, 'v' || g FROM generate_series(1, 100) g;
INSERT INTO by_range_detached VALUES (1, '2030-01-01', 'detached');
CREATE INDEX by_range_v ON by_range (v);
CREATE INDEX by_range_only ON ONLY by_range (lower(v));
CREATE INDEX by_range_2025_only ON by_range_2025 (lower(v));
ALTER INDEX by_range_only ATTACH PARTITION by_range_2025_only;

CREATE TABLE by_list (k text, v integer) PARTITION BY LIST (k);
CREATE TABLE by_list_ab PARTITION OF by_list FOR VALUES IN ('a', 'b');
CREATE TABLE by_list_null PARTITION OF by_list FOR VALUES IN (NULL, E'\\', '''', '日本') PARTITION BY RANGE (v);
CREATE TABLE by_list_null_low PARTITION OF by_list_null FOR VALUES FROM (MINVALUE) TO (0);
CREATE TABLE by_list_null_high PARTITION OF by_list_null FOR VALUES FROM (0) TO (MAXVALUE);
CREATE TABLE "by list 'rest'" PARTITION OF by_list DEFAULT;
INSERT INTO by_list VALUES ('a', 1), ('b', 2), (NULL, -1), (NULL, 1), (E'\\', 5), ('''', -5), ('日本', 0), ('zzz', NULL);

CREATE TABLE by_hash (id bigint, v text) PARTITION BY HASH (id);
CREATE TABLE by_hash_0 PARTITION OF by_hash FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE by_hash_1 PARTITION OF by_hash FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE by_hash_2 PARTITION OF by_hash FOR VALUES WITH (MODULUS 3, REMAINDER 2);
INSERT INTO by_hash SELECT g, 'h' || g FROM generate_series(1, 300) g;

-- rows of an enum land by the label's OID, which another database does not share
CREATE TABLE by_enum_hash (m mood, id integer, v text) PARTITION BY HASH (m);
CREATE TABLE by_enum_hash_0 PARTITION OF by_enum_hash FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE by_enum_hash_1 PARTITION OF by_enum_hash FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE by_enum_hash_2 PARTITION OF by_enum_hash FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE TABLE by_enum_hash_3 PARTITION OF by_enum_hash FOR VALUES WITH (MODULUS 4, REMAINDER 3);
INSERT INTO by_enum_hash SELECT m, g, 'row ' || g FROM generate_series(1, 20) g, unnest(enum_range(NULL::mood)) m;
CREATE TABLE by_expression (a integer, b text) PARTITION BY RANGE ((a % 10), lower(b) COLLATE "C");
CREATE TABLE by_expression_low PARTITION OF by_expression FOR VALUES FROM (MINVALUE, MINVALUE) TO (5, MINVALUE);
CREATE TABLE by_expression_high PARTITION OF by_expression FOR VALUES FROM (5, MINVALUE) TO (MAXVALUE, MAXVALUE);
INSERT INTO by_expression SELECT g, 'B' || g FROM generate_series(1, 40) g;
CREATE TABLE no_partitions (id integer) PARTITION BY RANGE (id);

-- inheritance ---------------------------------------------------------------------------------------------------------
CREATE TABLE parent_a (id integer, a text DEFAULT 'a', CONSTRAINT a_not_evil CHECK (a <> 'evil'));
CREATE TABLE parent_b (id integer, b text, CONSTRAINT only_here CHECK (b <> 'x') NO INHERIT);
CREATE TABLE child_ab (own integer, a text DEFAULT 'child') INHERITS (parent_a, parent_b);
CREATE TABLE grandchild () INHERITS (child_ab);
CREATE TABLE late_child (b text, id integer, extra boolean);
ALTER TABLE late_child INHERIT parent_b;
INSERT INTO parent_a VALUES (1, 'p');
INSERT INTO parent_b VALUES (1, 'p');
INSERT INTO child_ab (id, b, own) VALUES (2, 'c', 1);
INSERT INTO grandchild (id, a, b, own) VALUES (3, 'g', 'g', 2);
INSERT INTO late_child VALUES ('late', 4, true);

-- constraints ---------------------------------------------------------------------------------------------------------
CREATE TABLE tree (id integer PRIMARY KEY, parent_id integer REFERENCES tree (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, name text);
INSERT INTO tree VALUES (3, 2, 'leaf'), (2, 1, 'branch'), (1, NULL, 'root'), (4, 4, 'itself');
CREATE TABLE cycle_a (id integer PRIMARY KEY, b_id integer);
CREATE TABLE cycle_b (id integer PRIMARY KEY, a_id integer NOT NULL REFERENCES cycle_a (id));
INSERT INTO cycle_a VALUES (1, 1), (2, NULL);
INSERT INTO cycle_b VALUES (1, 1);
ALTER TABLE cycle_a ADD CONSTRAINT cycle_a_b FOREIGN KEY (b_id) REFERENCES cycle_b (id) ON UPDATE CASCADE ON DELETE SET NULL;
CREATE TABLE pair (a integer, b text, c integer, PRIMARY KEY (a, b), UNIQUE (c));
INSERT INTO pair VALUES (1, 'x', 1), (2, 'y', NULL);
CREATE TABLE pair_full (id integer PRIMARY KEY, a integer, b text, CONSTRAINT full_match FOREIGN KEY (b, a) REFERENCES pair (b, a) MATCH FULL);
CREATE UNIQUE INDEX pair_reversed ON pair (b, a);
INSERT INTO pair_full VALUES (1, 1, 'x'), (2, NULL, NULL);
CREATE TABLE pair_simple (id integer PRIMARY KEY, a integer DEFAULT 1, b text, FOREIGN KEY (a, b) REFERENCES pair ON DELETE SET DEFAULT);
INSERT INTO pair_simple VALUES (1, 1, 'x'), (2, NULL, 'not there'), (3, 99, NULL);
CREATE TABLE unproven (id integer PRIMARY KEY, tree_id integer, n integer);
INSERT INTO unproven VALUES (1, 999, -1);
ALTER TABLE unproven ADD CONSTRAINT unproven_tree FOREIGN KEY (tree_id) REFERENCES tree (id) NOT VALID;
ALTER TABLE unproven ADD CONSTRAINT unproven_check CHECK (n > 0) NOT VALID;
CREATE TABLE booking (room integer, during tstzrange, active boolean,
    CONSTRAINT circle_free EXCLUDE USING gist (during WITH &&) WHERE (active) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO booking VALUES (1, '[2026-01-01 00:00+00,2026-01-01 01:00+00)', true), (1, '[2026-01-01 00:30+00,2026-01-01 01:30+00)', false);
\if :contrib
ALTER TABLE booking ADD CONSTRAINT room_free EXCLUDE USING gist (room WITH =, during WITH &&) WHERE (active);
\endif
CREATE TABLE deferred_unique (id integer PRIMARY KEY DEFERRABLE, position integer, CONSTRAINT position_once UNIQUE (position) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO deferred_unique VALUES (1, 1), (2, 2);
CREATE TABLE checked (id integer PRIMARY KEY CHECK (id > 0), a integer CONSTRAINT "weird ""check" CHECK (a <> 7 OR a IS NULL), j jsonb CHECK (jsonb_typeof(j) = 'object'), CHECK (id < 1000 AND (a IS NULL OR a < id * 100)));
INSERT INTO checked VALUES (1, 2, '{}'), (2, NULL, NULL);
CREATE TABLE references_partitioned (id integer PRIMARY KEY, r_id integer, r_at date, FOREIGN KEY (r_id, r_at) REFERENCES by_range (id, at));
INSERT INTO references_partitioned SELECT row_number() OVER (), id, at FROM by_range LIMIT 10;
CREATE TABLE partitioned_references (tree_id integer REFERENCES tree (id), k integer) PARTITION BY LIST (k);
CREATE TABLE partitioned_references_1 PARTITION OF partitioned_references FOR VALUES IN (1);
INSERT INTO partitioned_references VALUES (1, 1);

-- replica identity ----------------------------------------------------------------------------------------------------
CREATE TABLE identity_full (a integer, b text);
ALTER TABLE identity_full REPLICA IDENTITY FULL;
CREATE TABLE identity_nothing (a integer PRIMARY KEY);
ALTER TABLE identity_nothing REPLICA IDENTITY NOTHING;
CREATE TABLE identity_index (a integer NOT NULL, b text);
CREATE UNIQUE INDEX identity_index_a ON identity_index (a);
ALTER TABLE identity_index REPLICA IDENTITY USING INDEX identity_index_a;
INSERT INTO identity_full VALUES (1, 'x'), (1, 'x');

COMMENT ON TABLE "Mixed Case" IS E'table\ncomment with \\. and ''quotes'' and 日本語';
COMMENT ON COLUMN "Mixed Case"."ta	b" IS 'a column with a tab in its name';
COMMENT ON CONSTRAINT "weird ""check" ON checked IS 'a constraint';
COMMENT ON INDEX tuned_expression IS 'an index';
COMMENT ON SEQUENCE never_used IS 'a sequence';
COMMENT ON TABLE by_enum_hash IS 'hash partitioned by an enum';
