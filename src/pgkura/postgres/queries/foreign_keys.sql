-- Foreign keys and their anti-joins (verify/foreign_keys.py).

-- name: list
-- Validated foreign keys of user tables with columns and the constraint's own equality operators.
SELECT n.nspname, c.relname, k.conname, fn.nspname, f.relname, k.confmatchtype::text,
       ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY u(num, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY u.place),
       ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY u(num, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY u.place),
       ARRAY(SELECT o.oprname::text FROM pg_catalog.unnest(k.conpfeqop) WITH ORDINALITY u(op, place)
             JOIN pg_catalog.pg_operator o ON o.oid = u.op ORDER BY u.place),
       ARRAY(SELECT m.nspname::text FROM pg_catalog.unnest(k.conpfeqop) WITH ORDINALITY u(op, place)
             JOIN pg_catalog.pg_operator o ON o.oid = u.op JOIN pg_catalog.pg_namespace m ON m.oid = o.oprnamespace ORDER BY u.place),
       pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(f.oid, 'SELECT')
         AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_schema_privilege(fn.oid, 'USAGE'),
       (pg_catalog.to_jsonb(k) ->> 'conperiod') IS NOT DISTINCT FROM 'true',
       NOT EXISTS (SELECT FROM pg_catalog.unnest(k.conpfeqop) op JOIN pg_catalog.pg_operator o ON o.oid = op
                   JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode JOIN pg_catalog.pg_roles r ON r.oid = p.proowner
                   WHERE NOT r.rolsuper)
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class f ON f.oid = k.confrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
WHERE k.contype = 'f' AND k.convalidated AND k.conparentid = 0
ORDER BY 1, 2, 3
