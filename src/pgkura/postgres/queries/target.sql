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
-- Per relation: INSERT, TRUNCATE, DELETE, TRIGGER, ownership; whether it holds any row is asked apart.
SELECT n.nspname, c.relname, pg_catalog.has_table_privilege(c.oid, 'INSERT') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
       pg_catalog.has_table_privilege(c.oid, 'TRUNCATE'), pg_catalog.has_table_privilege(c.oid, 'DELETE'),
       pg_catalog.has_table_privilege(c.oid, 'TRIGGER'),
       pg_catalog.pg_has_role(c.relowner, 'USAGE')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'

-- name: available_extensions
-- What CREATE EXTENSION could make.
SELECT name FROM pg_catalog.pg_available_extensions

-- name: exposed
-- Tables whose loading runs functions of somebody who is neither a superuser nor this role: CHECK constraints, stored
-- generated columns, domains (also inside other types) and partition keys are evaluated with the rights of whoever loads.
WITH RECURSIVE strangers AS (
    SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_roles r ON r.oid = p.proowner
    WHERE p.oid >= 16384 AND NOT r.rolsuper AND r.rolname <> current_user
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
), direct AS (
    SELECT 'pg_catalog.pg_proc'::regclass::oid AS classid, oid AS objid FROM strangers
    UNION ALL
    SELECT 'pg_catalog.pg_operator'::regclass, o.oid FROM pg_catalog.pg_operator o JOIN strangers s ON s.oid = o.oprcode
    UNION ALL
    SELECT 'pg_catalog.pg_opclass'::regclass, c.oid FROM pg_catalog.pg_opclass c
      JOIN pg_catalog.pg_amproc a ON a.amprocfamily = c.opcfamily JOIN strangers s ON s.oid = a.amproc
), types AS (
    -- domains that run such code, and every type that holds one of them
    SELECT k.contypid AS oid FROM pg_catalog.pg_depend d
      JOIN direct c ON c.classid = d.refclassid AND c.objid = d.refobjid
      JOIN pg_catalog.pg_constraint k ON k.oid = d.objid AND k.contypid <> 0
    WHERE d.classid = 'pg_catalog.pg_constraint'::regclass
    UNION
    SELECT h.oid FROM types t JOIN LATERAL (
        SELECT y.oid FROM pg_catalog.pg_type y WHERE y.typelem = t.oid OR y.typbasetype = t.oid
        UNION ALL
        SELECT y.oid FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.typrelid = a.attrelid
        WHERE a.atttypid = t.oid AND NOT a.attisdropped
        UNION ALL
        SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngsubtype = t.oid
        UNION ALL
        SELECT r.rngmultitypid FROM pg_catalog.pg_range r WHERE r.rngsubtype = t.oid
    ) h ON true
), code AS (
    SELECT classid, objid FROM direct UNION ALL SELECT 'pg_catalog.pg_type'::regclass, oid FROM types
), users AS (
    SELECT d.classid, d.objid, d.objsubid FROM pg_catalog.pg_depend d JOIN code c ON c.classid = d.refclassid AND c.objid = d.refobjid
    WHERE d.classid IN ('pg_catalog.pg_constraint'::regclass, 'pg_catalog.pg_attrdef'::regclass, 'pg_catalog.pg_class'::regclass)
), keyed AS (
    SELECT u.objid AS oid FROM users u JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = u.objid
    WHERE u.classid = 'pg_catalog.pg_class'::regclass
    UNION
    SELECT i.inhrelid FROM keyed k JOIN pg_catalog.pg_inherits i ON i.inhparent = k.oid
), relations AS (
    SELECT k.conrelid AS oid FROM users u JOIN pg_catalog.pg_constraint k
      ON u.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = u.objid WHERE k.contype = 'c' AND k.conrelid <> 0
    UNION
    SELECT a.adrelid FROM users u JOIN pg_catalog.pg_attrdef a
      ON u.classid = 'pg_catalog.pg_attrdef'::regclass AND a.oid = u.objid
      JOIN pg_catalog.pg_attribute t ON t.attrelid = a.adrelid AND t.attnum = a.adnum AND t.attgenerated <> ''
    UNION
    -- before 15 a generated column itself depends on what its expression calls
    SELECT t.attrelid FROM users u JOIN pg_catalog.pg_attribute t
      ON u.classid = 'pg_catalog.pg_class'::regclass AND t.attrelid = u.objid AND t.attnum = u.objsubid AND t.attgenerated <> ''
    UNION
    SELECT k.oid FROM keyed k
    UNION
    SELECT t.attrelid FROM pg_catalog.pg_attribute t JOIN types d ON d.oid = t.atttypid WHERE NOT t.attisdropped
), loaded AS (
    -- rows of a partition may come in through any of its ancestors
    SELECT r.oid FROM relations r
    UNION
    SELECT i.inhparent FROM loaded l JOIN pg_catalog.pg_inherits i ON i.inhrelid = l.oid
      JOIN pg_catalog.pg_class p ON p.oid = i.inhparent AND p.relkind = 'p'
)
SELECT n.nspname, c.relname, pg_catalog.pg_get_userbyid(c.relowner), r.rolsuper
FROM loaded x JOIN pg_catalog.pg_class c ON c.oid = x.oid AND c.relkind IN ('r', 'p')
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_roles r ON r.oid = c.relowner

-- name: own_marker
-- Whether a mark of this role's own is here (restore/marker.py).
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid
               JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner AND r.oid = c.relowner
               WHERE n.nspname = 'pgkura_restore' AND c.relname = 'marker' AND c.relkind = 'r' AND r.rolname = current_user
                 AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid))

-- name: own_ledger
-- Whether the table beside the mark is this role's own too, and nobody else may write to it (restore/ledger.py).
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid
               JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner AND r.oid = c.relowner
               WHERE n.nspname = 'pgkura_restore' AND c.relname = 'chunks' AND c.relkind = 'r' AND r.rolname = current_user
                 AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid)
                 AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid)
                 AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) a WHERE a.grantee <> c.relowner))

-- name: holding_rows
-- Tables that may hold rows: no page means none.
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND pg_catalog.pg_relation_size(c.oid) > 0

-- name: building
-- Bytes: the server's buffers, and what a session may use for building an index; processes that may help with it.
SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('shared_buffers')),
       pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')),
       pg_catalog.current_setting('max_parallel_maintenance_workers')::int

-- name: guests
-- Temporary logins of restores into this database; their names carry its oid, so that two restores leave each other alone.
SELECT r.rolname FROM pg_catalog.pg_roles r
WHERE pg_catalog.starts_with(r.rolname, 'pgkura_guest_' || (SELECT d.oid FROM pg_catalog.pg_database d
                                                           WHERE d.datname = pg_catalog.current_database()) || '_')

-- name: guest_prefix
SELECT 'pgkura_guest_' || d.oid || '_' FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()

-- name: harmless_routines
-- Routines that run with the caller's rights: executing them gives nobody more than he has.
SELECT 'ROUTINE ' || p.oid::pg_catalog.regprocedure::text FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE NOT p.prosecdef AND p.prokind <> 'a' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND pg_catalog.pg_has_role(p.proowner, 'USAGE')

-- name: strangers_in_schemas
-- Whether somebody who is neither a superuser nor this role has put anything into these schemas.
WITH path AS (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = ANY (%s::name[])),
strangers AS (SELECT r.oid FROM pg_catalog.pg_roles r WHERE NOT r.rolsuper AND r.rolname <> current_user)
SELECT EXISTS (SELECT FROM pg_catalog.pg_proc o JOIN path p ON p.oid = o.pronamespace JOIN strangers s ON s.oid = o.proowner)
    OR EXISTS (SELECT FROM pg_catalog.pg_operator o JOIN path p ON p.oid = o.oprnamespace JOIN strangers s ON s.oid = o.oprowner)
    OR EXISTS (SELECT FROM pg_catalog.pg_class o JOIN path p ON p.oid = o.relnamespace JOIN strangers s ON s.oid = o.relowner)
    OR EXISTS (SELECT FROM pg_catalog.pg_type o JOIN path p ON p.oid = o.typnamespace JOIN strangers s ON s.oid = o.typowner)

-- name: user_schemas
SELECT n.nspname FROM pg_catalog.pg_namespace n
WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgkura_restore')
  AND pg_catalog.pg_has_role(n.nspowner, 'USAGE')

-- name: superusers_schema
-- Whether nothing in this schema is the work of somebody who is no superuser.
SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_proc o JOIN pg_catalog.pg_namespace n ON n.oid = o.pronamespace
                   JOIN pg_catalog.pg_roles r ON r.oid = o.proowner WHERE n.nspname = %s AND NOT r.rolsuper)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_class o JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace
                   JOIN pg_catalog.pg_roles r ON r.oid = o.relowner WHERE n.nspname = %s AND NOT r.rolsuper)

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

-- name: shell_operators
-- Forward references (COMMUTATOR, NEGATOR) whose operator never came: no dump shows them, and they hold their types.
SELECT pg_catalog.format('DROP OPERATOR %I.%s (%s, %s)', n.nspname, o.oprname,
                         CASE o.oprleft WHEN 0 THEN 'NONE' ELSE pg_catalog.format_type(o.oprleft, NULL) END,
                         CASE o.oprright WHEN 0 THEN 'NONE' ELSE pg_catalog.format_type(o.oprright, NULL) END)
FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
WHERE o.oprcode = 0 AND o.oid >= 16384 AND pg_catalog.pg_has_role(o.oprowner, 'USAGE')

-- name: default_privileges
-- Default privileges: schema ('' for all), the kind as ALTER DEFAULT PRIVILEGES names it, and statements that end them.
SELECT COALESCE(n.nspname, ''), k.word,
       pg_catalog.array_remove(ARRAY(SELECT pg_catalog.format('%s REVOKE ALL ON %s FROM %s', k.head, k.word,
                                      COALESCE(pg_catalog.quote_ident(r.rolname), 'PUBLIC'))
             FROM (SELECT DISTINCT a.grantee FROM pg_catalog.aclexplode(d.defaclacl) a) g
             LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.grantee)
       || CASE WHEN n.oid IS NULL THEN
              pg_catalog.format('%s GRANT ALL ON %s TO %I', k.head, k.word, pg_catalog.pg_get_userbyid(d.defaclrole))
          END
       || CASE WHEN n.oid IS NULL AND k.word IN ('FUNCTIONS', 'TYPES') THEN
              pg_catalog.format('%s GRANT ALL ON %s TO PUBLIC', k.head, k.word)
          END, NULL)
FROM pg_catalog.pg_default_acl d
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace
CROSS JOIN LATERAL (
    SELECT pg_catalog.format('ALTER DEFAULT PRIVILEGES FOR ROLE %I', pg_catalog.pg_get_userbyid(d.defaclrole))
               || COALESCE(' IN SCHEMA ' || pg_catalog.quote_ident(n.nspname), ''),
           CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
               WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' WHEN 'L' THEN 'LARGE OBJECTS' END
) AS k (head, word)
