-- Foreign keys and their anti-joins (verify/foreign_keys.py).

-- name: list
-- Validated foreign keys with columns and the constraint's own equality operators. Copies of a partitioned table's key
-- on its partitions are left out: the key of the root looks at all of them. A key that is not validated (NOT VALID,
-- NOT ENFORCED) promises nothing about the rows; the catalog comparison sees its definition.
-- `foreign_code`: comparing would run a function that neither a superuser nor we ourselves own, as an operator or as
-- the cast from the column's type (a domain's is its base's) to the operator's. The tables come last, for `trees`.
-- Collations are those of the referenced columns, where the referring ones have others.
WITH RECURSIVE domains AS (
  SELECT t.oid AS type, t.oid AS base FROM pg_catalog.pg_type t
  WHERE t.oid IN (SELECT a.atttypid FROM pg_catalog.pg_constraint k
                  JOIN pg_catalog.pg_attribute a ON (a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey))
                    OR (a.attrelid = k.confrelid AND a.attnum = ANY (k.confkey)) WHERE k.contype = 'f')
  UNION ALL
  SELECT d.type, t.typbasetype FROM domains d JOIN pg_catalog.pg_type t ON t.oid = d.base WHERE t.typtype = 'd'
), bases AS (
  SELECT d.type, d.base FROM domains d JOIN pg_catalog.pg_type t ON t.oid = d.base WHERE t.typtype <> 'd'
), trusted AS (
  SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_roles r ON r.oid = p.proowner
  WHERE r.rolsuper OR r.rolname = SESSION_USER
), keys AS (
  SELECT k.*, u.place, u.num, u.fnum, u.op FROM pg_catalog.pg_constraint k
  CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(k.conkey), pg_catalog.unnest(k.confkey), pg_catalog.unnest(k.conpfeqop))
    WITH ORDINALITY AS u(num, fnum, op, place)
  WHERE k.contype = 'f' AND k.convalidated AND k.conparentid = 0
), columns AS (
  SELECT k.oid, pg_catalog.array_agg(a.attname::text ORDER BY k.place) AS columns,
         pg_catalog.array_agg(f.attname::text ORDER BY k.place) AS keys,
         pg_catalog.array_agg(n.nspname::text ORDER BY k.place) AS schemas,
         pg_catalog.array_agg(o.oprname::text ORDER BY k.place) AS operators,
         pg_catalog.array_agg(cn.nspname::text ORDER BY k.place) AS collation_schemas,
         pg_catalog.array_agg(cl.collname::text ORDER BY k.place) AS collations,
         pg_catalog.bool_or(o.oprcode::oid NOT IN (SELECT t.oid FROM trusted t)
           OR foreign_cast.found OR key_cast.found) AS foreign_code
  FROM keys k
  JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.num
  JOIN pg_catalog.pg_attribute f ON f.attrelid = k.confrelid AND f.attnum = k.fnum
  JOIN pg_catalog.pg_operator o ON o.oid = k.op JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
  LEFT JOIN pg_catalog.pg_collation cl ON cl.oid = f.attcollation AND f.attcollation <> a.attcollation
  LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = cl.collnamespace
  JOIN bases ab ON ab.type = a.atttypid JOIN bases fb ON fb.type = f.atttypid
  CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM pg_catalog.pg_cast c WHERE c.castsource = ab.base
    AND c.castfunc <> 0 AND ab.base <> o.oprright AND c.castfunc NOT IN (SELECT t.oid FROM trusted t)) AS found) foreign_cast
  CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM pg_catalog.pg_cast c WHERE c.castsource = fb.base
    AND c.castfunc <> 0 AND fb.base <> o.oprleft AND c.castfunc NOT IN (SELECT t.oid FROM trusted t)) AS found) key_cast
  GROUP BY k.oid
)
SELECT n.nspname, c.relname, c.relkind::text, k.conname, fn.nspname, f.relname, f.relkind::text, k.confmatchtype::text,
       m.columns, m.keys, m.schemas, m.operators, m.collation_schemas, m.collations,
       pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(f.oid, 'SELECT')
         AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_schema_privilege(fn.oid, 'USAGE'),
       (pg_catalog.to_jsonb(k) ->> 'conperiod') IS NOT DISTINCT FROM 'true',
       m.foreign_code, ARRAY[c.oid::bigint, f.oid::bigint]
FROM columns m JOIN pg_catalog.pg_constraint k ON k.oid = m.oid
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class f ON f.oid = k.confrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
ORDER BY 1, 2, 4

-- name: trees
-- Expressions of tables that the planner looks at and that call what neither a superuser nor we ourselves own: the
-- relation with all partitioned tables above it, the expression, and the oids of those functions and operators.
WITH RECURSIVE strangers AS (
  SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_roles r ON r.oid = p.proowner
  WHERE p.oid >= 16384 AND NOT r.rolsuper AND r.rolname <> SESSION_USER
), code AS (
  SELECT 'pg_catalog.pg_proc'::regclass::oid AS classid, s.oid FROM strangers s
  UNION ALL
  SELECT 'pg_catalog.pg_operator'::regclass, o.oid FROM pg_catalog.pg_operator o JOIN strangers s ON s.oid = o.oprcode
), users AS (
  SELECT DISTINCT d.classid, d.objid FROM pg_catalog.pg_depend d JOIN code c ON c.classid = d.refclassid AND c.oid = d.refobjid
), trees AS (
  SELECT i.indrelid AS oid, x.tree FROM users u
    JOIN pg_catalog.pg_index i ON u.classid = 'pg_catalog.pg_class'::regclass AND i.indexrelid = u.objid
    CROSS JOIN LATERAL (VALUES (i.indexprs::text), (i.indpred::text)) x(tree)
  UNION ALL
  SELECT t.stxrelid, pg_catalog.to_jsonb(t) ->> 'stxexprs' FROM users u
    JOIN pg_catalog.pg_statistic_ext t ON u.classid = 'pg_catalog.pg_statistic_ext'::regclass AND t.oid = u.objid
  UNION ALL
  SELECT k.conrelid, k.conbin::text FROM users u
    JOIN pg_catalog.pg_constraint k ON u.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = u.objid
  UNION ALL
  SELECT p.partrelid, p.partexprs::text FROM users u
    JOIN pg_catalog.pg_partitioned_table p ON u.classid = 'pg_catalog.pg_class'::regclass AND p.partrelid = u.objid
), above AS (
  SELECT t.oid AS leaf, t.oid FROM trees t
  UNION
  SELECT a.leaf, i.inhparent FROM above a JOIN pg_catalog.pg_inherits i ON i.inhrelid = a.oid
)
SELECT (SELECT pg_catalog.array_agg(a.oid::bigint) FROM above a WHERE a.leaf = t.oid), t.tree,
       (SELECT pg_catalog.array_agg(c.oid::bigint) FROM code c)
FROM trees t WHERE t.tree IS NOT NULL
