-- What a restore asks of its target (restore/target.py).

-- name: role
-- Attributes of the connected role.
SELECT r.rolname, r.rolsuper, r.rolcreaterole, r.rolreplication, r.rolbypassrls,
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
       pg_catalog.current_setting('supautils.policy_grants', true) IS NOT NULL,
       ARRAY(SELECT m.rolname::text FROM pg_catalog.pg_roles m WHERE pg_catalog.pg_has_role(m.oid, 'MEMBER'))
FROM pg_catalog.pg_roles r WHERE r.rolname = current_user

-- name: schemas
-- Schemas, and whether this role may create in them.
SELECT n.nspname, pg_catalog.has_schema_privilege(n.oid, 'CREATE') FROM pg_catalog.pg_namespace n

-- name: table_rights
-- Per relation: INSERT, TRUNCATE, TRIGGER, ownership, and whether it holds any row is asked apart.
SELECT n.nspname, c.relname, pg_catalog.has_table_privilege(c.oid, 'INSERT') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
       pg_catalog.has_table_privilege(c.oid, 'TRUNCATE'), pg_catalog.has_table_privilege(c.oid, 'TRIGGER'),
       pg_catalog.pg_has_role(c.relowner, 'USAGE')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'

-- name: available_extensions
-- What CREATE EXTENSION could make.
SELECT name FROM pg_catalog.pg_available_extensions

-- name: exposed
-- Tables whose loading runs functions of somebody who is neither a superuser nor this role: CHECK constraints,
-- generated columns, domains and partition keys are evaluated with the rights of whoever loads.
WITH strangers AS (
    SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_roles r ON r.oid = p.proowner
    WHERE p.oid >= 16384 AND NOT r.rolsuper AND r.rolname <> current_user
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
), code AS (
    SELECT 'pg_catalog.pg_proc'::regclass::oid AS classid, oid AS objid FROM strangers
    UNION ALL
    SELECT 'pg_catalog.pg_operator'::regclass, o.oid FROM pg_catalog.pg_operator o JOIN strangers s ON s.oid = o.oprcode
), users AS (
    SELECT d.classid, d.objid FROM pg_catalog.pg_depend d JOIN code c ON c.classid = d.refclassid AND c.objid = d.refobjid
    WHERE d.classid IN ('pg_catalog.pg_constraint'::regclass, 'pg_catalog.pg_attrdef'::regclass, 'pg_catalog.pg_class'::regclass)
), domains AS (
    SELECT k.contypid AS oid FROM users u JOIN pg_catalog.pg_constraint k
      ON u.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = u.objid WHERE k.contypid <> 0
), relations AS (
    SELECT k.conrelid AS oid FROM users u JOIN pg_catalog.pg_constraint k
      ON u.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = u.objid WHERE k.contype = 'c' AND k.conrelid <> 0
    UNION
    SELECT a.adrelid FROM users u JOIN pg_catalog.pg_attrdef a
      ON u.classid = 'pg_catalog.pg_attrdef'::regclass AND a.oid = u.objid
      JOIN pg_catalog.pg_attribute t ON t.attrelid = a.adrelid AND t.attnum = a.adnum AND t.attgenerated <> ''
    UNION
    SELECT u.objid FROM users u WHERE u.classid = 'pg_catalog.pg_class'::regclass
    UNION
    SELECT t.attrelid FROM pg_catalog.pg_attribute t JOIN domains d ON d.oid = t.atttypid WHERE NOT t.attisdropped
)
SELECT n.nspname, c.relname, pg_catalog.pg_get_userbyid(c.relowner), r.rolsuper
FROM relations x JOIN pg_catalog.pg_class c ON c.oid = x.oid AND c.relkind IN ('r', 'p')
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_roles r ON r.oid = c.relowner

-- name: large_objects
-- Oids that are taken.
SELECT m.oid::bigint FROM pg_catalog.pg_largeobject_metadata m

-- name: has_rows
-- Filled in by the caller with a quoted name.
SELECT EXISTS (SELECT FROM ONLY {table})

-- name: default_grantees
-- Roles that default privileges of this database give something to when an object is created.
SELECT DISTINCT COALESCE(r.rolname, '')
FROM pg_catalog.pg_default_acl d
CROSS JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) a
LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
WHERE a.grantee <> d.defaclrole AND COALESCE(r.rolname, '') <> current_user
