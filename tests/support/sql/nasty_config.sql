-- An extension with configuration tables, filled by a user.
CREATE EXTENSION kura_config;
INSERT INTO kura_config.options VALUES ('mine', E'tab\t'), ('also mine', NULL);
INSERT INTO kura_config.jobs (what, at) VALUES ('sweep', '2026-01-01 00:00+00'), ('cook', 'infinity');
SELECT nextval('kura_config.tickets') FROM generate_series(1, 7);
COMMENT ON EXTENSION kura_config IS 'ours, with rows';
