-- Bulk rows. Variables: scale (integer).
SET search_path = nasty, public;
-- A table of several pages with dead rows, one with wide values, one of plain events
CREATE TABLE bulk_events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL, kind text NOT NULL, payload jsonb, score real);
INSERT INTO bulk_events (at, kind, payload, score)
    SELECT timestamptz '2026-01-01 00:00+00' + g * interval '1 second', 'kind ' || g % 7, jsonb_build_object('n', g, 't', repeat('x', g % 50)), g / 3.0
    FROM generate_series(1, 5000 * :scale) g;
UPDATE bulk_events SET kind = 'updated' WHERE id % 11 = 0;
DELETE FROM bulk_events WHERE id % 13 = 0;
CREATE TABLE bulk_wide (id integer PRIMARY KEY, body text, blob bytea);
INSERT INTO bulk_wide SELECT g, (SELECT string_agg(md5((g * 1000 + k)::text), '') FROM generate_series(1, 300) k), decode(repeat(md5(g::text), 200), 'hex')
    FROM generate_series(1, 20 * :scale) g;
CREATE INDEX bulk_events_at ON bulk_events (at, kind) INCLUDE (score);
