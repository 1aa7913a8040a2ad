-- What PostgreSQL 18 added.
SET search_path = nasty, public;
CREATE TABLE virtual_columns (id integer PRIMARY KEY, a integer, b integer GENERATED ALWAYS AS (a * 2) VIRTUAL, c text GENERATED ALWAYS AS ('c' || a) STORED, d integer GENERATED ALWAYS AS (a + 1));
INSERT INTO virtual_columns (id, a) VALUES (1, 1), (2, NULL);
CREATE TABLE named_not_null (a integer CONSTRAINT a_is_there NOT NULL, b integer CONSTRAINT "b ""there""" NOT NULL NO INHERIT, c integer);
INSERT INTO named_not_null VALUES (1, 2, NULL);
ALTER TABLE named_not_null ADD CONSTRAINT c_some_day NOT NULL c NOT VALID;
COMMENT ON CONSTRAINT a_is_there ON named_not_null IS 'a named NOT NULL';
CREATE TABLE not_enforced (id integer PRIMARY KEY, n integer CHECK (n > 0) NOT ENFORCED, t integer REFERENCES tree (id) NOT ENFORCED);
INSERT INTO not_enforced VALUES (1, -5, 424242);
\if :contrib
CREATE TABLE valid_time (id integer, during daterange, PRIMARY KEY (id, during WITHOUT OVERLAPS));
CREATE TABLE within_valid_time (id integer, during daterange, FOREIGN KEY (id, PERIOD during) REFERENCES valid_time (id, PERIOD during));
INSERT INTO valid_time VALUES (1, '[2026-01-01,2026-06-01)'), (1, '[2026-06-01,2027-01-01)');
INSERT INTO within_valid_time VALUES (1, '[2026-03-01,2026-09-01)');
\endif
CREATE TABLE uuid_v7 (id uuid DEFAULT uuidv7() PRIMARY KEY);
INSERT INTO uuid_v7 DEFAULT VALUES;
CREATE PUBLICATION with_generated FOR TABLE nasty.generated WITH (publish_generated_columns = stored);
CREATE TABLE unvalidated_partition_fk (k integer, tree_id integer) PARTITION BY LIST (k);
CREATE TABLE unvalidated_partition_fk_1 PARTITION OF unvalidated_partition_fk FOR VALUES IN (1);
INSERT INTO unvalidated_partition_fk VALUES (1, 987654);
ALTER TABLE unvalidated_partition_fk ADD CONSTRAINT later_fk FOREIGN KEY (tree_id) REFERENCES tree (id) NOT VALID;
