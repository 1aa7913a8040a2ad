\echo Use "CREATE EXTENSION kura_config" to load this file. \quit

-- rows of the user beside shipped ones; rows of the user only; a position; rows that belong to the extension alone
CREATE TABLE options (name text PRIMARY KEY, value text, shipped boolean NOT NULL DEFAULT false);
INSERT INTO options VALUES ('colour', 'red', true), ('size', '1', true);
SELECT pg_catalog.pg_extension_config_dump('options', 'WHERE NOT shipped');
CREATE SEQUENCE jobs_id_seq;
SELECT pg_catalog.pg_extension_config_dump('jobs_id_seq', '');
CREATE TABLE jobs (id bigint PRIMARY KEY DEFAULT nextval('kura_config.jobs_id_seq'), what text, at timestamptz);
SELECT pg_catalog.pg_extension_config_dump('jobs', '');
CREATE SEQUENCE tickets;
SELECT pg_catalog.pg_extension_config_dump('tickets', '');
CREATE TABLE ledger (n integer);
INSERT INTO ledger VALUES (1), (2);
CREATE FUNCTION next_ticket() RETURNS bigint LANGUAGE sql AS 'SELECT nextval(''kura_config.tickets'')';
-- a trusted extension's objects belong to the bootstrap superuser: let its user use them
GRANT SELECT, INSERT, UPDATE, DELETE ON options, jobs TO @extowner@;
GRANT USAGE, SELECT, UPDATE ON SEQUENCE tickets, jobs_id_seq TO @extowner@;
GRANT SELECT ON ledger TO @extowner@;
