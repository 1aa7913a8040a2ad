-- Changes to the nasty database that a proof must find (tests/postgres/test_verify_mutations.py).
-- Under `-- found: NAME` come two lines: the change, and what undoes it. {db} is the database, {used_once} a value.

-- group: rows
-- found: rows of nasty.texts
UPDATE nasty.texts SET v = U&'e\0301' WHERE id = 21;
UPDATE nasty.texts SET v = U&'\00e9' WHERE id = 21;
-- found: rows of nasty.documents
UPDATE nasty.documents SET x = NULL WHERE id = 2;
UPDATE nasty.documents SET x = '' WHERE id = 2;
-- found: rows of nasty.numbers
UPDATE nasty.numbers SET f8 = '0' WHERE id = 4;
UPDATE nasty.numbers SET f8 = '-0' WHERE id = 4;
-- found: rows of nasty.no_key
UPDATE nasty.no_key SET a = NULL, b = NULL WHERE ctid = (SELECT min(ctid) FROM nasty.no_key WHERE b = 'same');
UPDATE nasty.no_key SET a = 1, b = 'same' WHERE ctid = (SELECT max(ctid) FROM nasty.no_key WHERE a IS NULL);
-- found: rows of nasty.no_columns
INSERT INTO nasty.no_columns DEFAULT VALUES;
DELETE FROM nasty.no_columns WHERE ctid = (SELECT max(ctid) FROM nasty.no_columns);
-- found: rows of nasty.empty_table
INSERT INTO nasty.empty_table VALUES (1);
DELETE FROM nasty.empty_table;
-- found: rows of nasty.by_enum_hash
UPDATE nasty.by_enum_hash SET v = 'other' WHERE id = 1 AND m = 'ok';
UPDATE nasty.by_enum_hash SET v = 'row 1' WHERE id = 1 AND m = 'ok';
-- found: rows of nasty.child_ab
UPDATE ONLY nasty.child_ab SET own = 5;
UPDATE ONLY nasty.child_ab SET own = 1;
-- found: rows of nasty.tuned
UPDATE nasty.tuned SET ext = ext || 'x' WHERE id = 20;
UPDATE nasty.tuned SET ext = left(ext, -1) WHERE id = 20;
-- found: contents of large objects
SELECT lo_put(700004, 100000, 'END');
SELECT lo_put(700004, 100000, 'end');

-- group: states
-- found: value of sequence nasty.used_once
SELECT setval('nasty.used_once', 50);
SELECT setval('nasty.used_once', {used_once});
-- found: value of sequence nasty.set_uncalled
SELECT setval('nasty.set_uncalled', 77, true);
SELECT setval('nasty.set_uncalled', 77, false);
-- found: role nasty_bypass
ALTER ROLE nasty_bypass CONNECTION LIMIT 3;
ALTER ROLE nasty_bypass CONNECTION LIMIT -1;
-- found: role nasty_app
ALTER ROLE nasty_app VALID UNTIL '2098-12-31 23:59:59+00';
ALTER ROLE nasty_app VALID UNTIL '2099-12-31 23:59:59+00';
-- found: comment on role nasty_grantor
COMMENT ON ROLE nasty_grantor IS 'new';
COMMENT ON ROLE nasty_grantor IS NULL;
-- found: settings of role nasty_owner
ALTER ROLE nasty_owner SET work_mem = '9MB';
ALTER ROLE nasty_owner SET work_mem = '8MB';
-- found: password of role nasty_replicator
ALTER ROLE nasty_replicator PASSWORD 'new';
ALTER ROLE nasty_replicator PASSWORD NULL;
-- found: membership of nasty_writer in nasty_reader
REVOKE nasty_reader FROM nasty_writer;
GRANT nasty_reader TO nasty_writer;
-- found: membership of nasty_owner in nasty_bypass
GRANT nasty_bypass TO nasty_owner;
REVOKE nasty_bypass FROM nasty_owner;
-- found: database comment
COMMENT ON DATABASE {db} IS 'new';
COMMENT ON DATABASE {db} IS E'the nasty database\n日本語';
-- found: database connection limit
ALTER DATABASE {db} CONNECTION LIMIT 91;
ALTER DATABASE {db} CONNECTION LIMIT 90;
-- found: database setting work_mem
ALTER DATABASE {db} SET work_mem = '5MB';
ALTER DATABASE {db} RESET work_mem;
-- found: database setting xmlbinary
ALTER DATABASE {db} SET xmlbinary = 'base64';
ALTER DATABASE {db} SET xmlbinary = 'hex';
-- found: setting work_mem of role nasty_app in the database
ALTER ROLE nasty_app IN DATABASE {db} SET work_mem = '5MB';
ALTER ROLE nasty_app IN DATABASE {db} RESET work_mem;
-- found: database privileges
GRANT CONNECT ON DATABASE {db} TO nasty_writer;
REVOKE CONNECT ON DATABASE {db} FROM nasty_writer;
-- found: privileges of large object 700001
REVOKE SELECT ON LARGE OBJECT 700001 FROM nasty_reader;
GRANT SELECT ON LARGE OBJECT 700001 TO nasty_reader;
-- found: comment on large object 700001
COMMENT ON LARGE OBJECT 700001 IS NULL;
COMMENT ON LARGE OBJECT 700001 IS 'a large object';
-- found: owner of large object 700002
ALTER LARGE OBJECT 700002 OWNER TO nasty_app;
ALTER LARGE OBJECT 700002 OWNER TO postgres;
-- found: large object 700009
SELECT lo_create(700009);
SELECT lo_unlink(700009);

-- group: catalog
-- found: relation nasty.rls_plain
ALTER TABLE nasty.rls_plain DISABLE ROW LEVEL SECURITY;
ALTER TABLE nasty.rls_plain ENABLE ROW LEVEL SECURITY;
-- found: relation nasty.rls_forced
ALTER TABLE nasty.rls_forced NO FORCE ROW LEVEL SECURITY;
ALTER TABLE nasty.rls_forced FORCE ROW LEVEL SECURITY;
-- found: policy sleeping on nasty.policy_without_rls
ALTER POLICY sleeping ON nasty.policy_without_rls USING (true);
ALTER POLICY sleeping ON nasty.policy_without_rls USING (id > 0);
-- found: policy delete_none on nasty.rls_plain
ALTER POLICY delete_none ON nasty.rls_plain TO PUBLIC;
ALTER POLICY delete_none ON nasty.rls_plain TO nasty_writer;
-- found: relation nasty.numbers
GRANT SELECT ON nasty.numbers TO nasty_reader;
REVOKE SELECT ON nasty.numbers FROM nasty_reader;
-- found: column nasty.watched.a
REVOKE UPDATE (a) ON nasty.watched FROM nasty_app;
GRANT UPDATE (a) ON nasty.watched TO nasty_app;
-- found: function nasty.with_settings()
GRANT EXECUTE ON FUNCTION nasty.with_settings() TO PUBLIC;
REVOKE EXECUTE ON FUNCTION nasty.with_settings() FROM PUBLIC;
-- found: type nasty.mood
GRANT USAGE ON TYPE nasty.mood TO PUBLIC;
REVOKE USAGE ON TYPE nasty.mood FROM PUBLIC;
-- found: function nasty.overloaded(integer)
CREATE OR REPLACE FUNCTION nasty.overloaded(integer) RETURNS text LANGUAGE sql AS $$ SELECT 'other' $$;
CREATE OR REPLACE FUNCTION nasty.overloaded(integer) RETURNS text LANGUAGE sql AS $$ SELECT 'integer' $$;
-- found: function nasty.is_good(text)
ALTER FUNCTION nasty.is_good(text) SECURITY DEFINER;
ALTER FUNCTION nasty.is_good(text) SECURITY INVOKER;
-- found: trigger "disabled ""one""" on nasty.watched
ALTER TABLE nasty.watched ENABLE TRIGGER "disabled ""one""";
ALTER TABLE nasty.watched DISABLE TRIGGER "disabled ""one""";
-- found: rule no_delete on nasty.rule_table
ALTER TABLE nasty.rule_table DISABLE RULE no_delete;
ALTER TABLE nasty.rule_table ENABLE RULE no_delete;
-- found: column nasty.holes.d
ALTER TABLE nasty.holes ALTER d SET DEFAULT 'x';
ALTER TABLE nasty.holes ALTER d SET DEFAULT 'changed later';
-- found: column nasty.by_list_ab.k
ALTER TABLE nasty.by_list_ab ALTER k SET STORAGE EXTERNAL;
ALTER TABLE nasty.by_list_ab ALTER k SET STORAGE EXTENDED;
-- found: column nasty.fired.what
ALTER TABLE nasty.fired ALTER what SET STATISTICS 7;
ALTER TABLE nasty.fired ALTER what SET STATISTICS -1;
-- found: relation nasty.identity_full
ALTER TABLE nasty.identity_full REPLICA IDENTITY DEFAULT;
ALTER TABLE nasty.identity_full REPLICA IDENTITY FULL;
-- found: relation nasty.never_used
ALTER SEQUENCE nasty.never_used INCREMENT 6;
ALTER SEQUENCE nasty.never_used INCREMENT 5;
-- found: publication "some tables"
ALTER PUBLICATION "some tables" DROP TABLE ONLY nasty.parent_a;
ALTER PUBLICATION "some tables" ADD TABLE ONLY nasty.parent_a;
-- found: default_privileges for postgres in nasty on r
ALTER DEFAULT PRIVILEGES IN SCHEMA nasty REVOKE INSERT ON TABLES FROM nasty_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA nasty GRANT INSERT ON TABLES TO nasty_app;
-- found: schema "naïve schéma"
COMMENT ON SCHEMA "naïve schéma" IS 'new';
COMMENT ON SCHEMA "naïve schéma" IS E'line one\nline two\t\\ and ''quotes''';
-- found: index nasty.extra_index
CREATE INDEX extra_index ON nasty.fired (what);
DROP INDEX nasty.extra_index;
-- found: constraint pair_simple_a_b_fkey on nasty.pair_simple
ALTER TABLE nasty.pair_simple ALTER CONSTRAINT pair_simple_a_b_fkey DEFERRABLE;
ALTER TABLE nasty.pair_simple ALTER CONSTRAINT pair_simple_a_b_fkey NOT DEFERRABLE;
-- found: statistics nasty.stat_all
COMMENT ON STATISTICS nasty.stat_all IS NULL;
COMMENT ON STATISTICS nasty.stat_all IS 'a statistics object';
-- found: statistics nasty.stat_all
ALTER STATISTICS nasty.stat_all SET STATISTICS 78;
ALTER STATISTICS nasty.stat_all SET STATISTICS 77;
-- found: server dummy_server
ALTER SERVER dummy_server OPTIONS (SET host 'x');
ALTER SERVER dummy_server OPTIONS (SET host 'ex''ample');
-- found: user_mapping dummy_server for nasty_app
ALTER USER MAPPING FOR nasty_app SERVER dummy_server OPTIONS (SET password 'x');
ALTER USER MAPPING FOR nasty_app SERVER dummy_server OPTIONS (SET password 'mapping-secret');
-- found: collation nasty.posix_copy
COMMENT ON COLLATION nasty.posix_copy IS NULL;
COMMENT ON COLLATION nasty.posix_copy IS 'a collation';
-- found: cast (nasty.mood AS integer)
COMMENT ON CAST (nasty.mood AS integer) IS NULL;
COMMENT ON CAST (nasty.mood AS integer) IS 'a cast';
-- found: type nasty.small_positive
ALTER DOMAIN nasty.small_positive SET NOT NULL;
ALTER DOMAIN nasty.small_positive DROP NOT NULL;
-- found: relation nasty.simple_view
COMMENT ON VIEW nasty.simple_view IS 'new';
COMMENT ON VIEW nasty.simple_view IS 'a view';
-- found: subscription far_away
ALTER SUBSCRIPTION far_away SET (synchronous_commit = 'on');
ALTER SUBSCRIPTION far_away SET (synchronous_commit = 'off');
-- found: transform for integer language second_plpgsql
COMMENT ON TRANSFORM FOR integer LANGUAGE second_plpgsql IS 'new';
COMMENT ON TRANSFORM FOR integer LANGUAGE second_plpgsql IS NULL;
-- found: text_search_dictionary nasty.simple_no_stop
COMMENT ON TEXT SEARCH DICTIONARY nasty.simple_no_stop IS NULL;
COMMENT ON TEXT SEARCH DICTIONARY nasty.simple_no_stop IS 'a text search dictionary';
-- found: text_search_parser nasty.plain_parser
COMMENT ON TEXT SEARCH PARSER nasty.plain_parser IS 'new';
COMMENT ON TEXT SEARCH PARSER nasty.plain_parser IS NULL;
-- found: text_search_template nasty.plain_template
COMMENT ON TEXT SEARCH TEMPLATE nasty.plain_template IS 'new';
COMMENT ON TEXT SEARCH TEMPLATE nasty.plain_template IS NULL;
-- found: operator_class nasty.point3_ops USING btree
COMMENT ON OPERATOR CLASS nasty.point3_ops USING btree IS 'new';
COMMENT ON OPERATOR CLASS nasty.point3_ops USING btree IS NULL;
-- found: operator_family nasty.empty_family USING hash
COMMENT ON OPERATOR FAMILY nasty.empty_family USING hash IS 'new';
COMMENT ON OPERATOR FAMILY nasty.empty_family USING hash IS NULL;
-- found: trigger on_partitioned on nasty.by_range_2025
ALTER TABLE nasty.by_range_2025 ENABLE TRIGGER on_partitioned;
ALTER TABLE nasty.by_range_2025 DISABLE TRIGGER on_partitioned;
-- found: relation nasty.tuned
ALTER TABLE nasty.tuned SET (toast.autovacuum_enabled = true);
ALTER TABLE nasty.tuned SET (toast.autovacuum_enabled = false);
-- found: system_privileges relation pg_authid
GRANT SELECT ON pg_catalog.pg_authid TO nasty_app;
REVOKE SELECT ON pg_catalog.pg_authid FROM nasty_app;
-- found: system_privileges function pg_relation_filenode(regclass)
GRANT EXECUTE ON FUNCTION pg_catalog.pg_relation_filenode(regclass) TO PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_relation_filenode(regclass) FROM PUBLIC;
-- found: function nasty.longest(text)
ALTER AGGREGATE nasty.longest(text) OWNER TO nasty_app;
ALTER AGGREGATE nasty.longest(text) OWNER TO postgres;
-- found: access_method second_heap
COMMENT ON ACCESS METHOD second_heap IS 'new';
COMMENT ON ACCESS METHOD second_heap IS 'the heap by another name';
-- found: relation nasty.extra_table
CREATE TABLE nasty.extra_table ();
DROP TABLE nasty.extra_table;
-- found: relation nasty.checked_view
ALTER VIEW nasty.checked_view SET (check_option = cascaded);
ALTER VIEW nasty.checked_view SET (check_option = local);
-- found: index nasty.tuned_expression
ALTER INDEX nasty.tuned_expression SET (fillfactor = 55);
ALTER INDEX nasty.tuned_expression RESET (fillfactor);
-- found: relation nasty.holes
ALTER TABLE nasty.holes SET (fillfactor = 71);
ALTER TABLE nasty.holes RESET (fillfactor);
-- found: relation nasty.of_writer
ALTER TABLE nasty.of_writer OWNER TO nasty_app;
ALTER TABLE nasty.of_writer OWNER TO nasty_writer;

-- group: since 15
-- found: publication_schema whole_schema publishes schema nasty
ALTER PUBLICATION whole_schema DROP TABLES IN SCHEMA nasty;
ALTER PUBLICATION whole_schema ADD TABLES IN SCHEMA nasty;
-- found: parameter log_min_duration_statement
REVOKE SET ON PARAMETER log_min_duration_statement FROM nasty_app;
GRANT SET ON PARAMETER log_min_duration_statement TO nasty_app;
-- found: publication filtered
ALTER PUBLICATION filtered SET TABLE nasty.tree WHERE (id > 2), nasty.texts (id, v), nasty.by_list_ab;
ALTER PUBLICATION filtered SET TABLE nasty.tree WHERE (id > 1 AND name <> E'it''s'), nasty.texts (id, v), nasty.by_list_ab;
