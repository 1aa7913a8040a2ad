-- Catalog readers of postgres/facts.py. search_path is empty; every function and type is pg_catalog's or named in
-- full; no value of a user's type is ever cast or compared here.

-- name: tables
-- Relations that may hold rows, and foreign tables; extension members only where they are configuration tables.
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, pg_catalog.pg_get_userbyid(c.relowner),
       c.relpersistence::text, COALESCE(am.amname, ''), c.relfilenode::bigint,
       -- Estimates of the work: the heap's main file and its TOAST table's. All files, of 10,000 tables, took a second.
       s.heap / pg_catalog.current_setting('block_size')::bigint,
       s.heap + CASE WHEN c.relkind IN ('r', 'm')
                     THEN COALESCE(pg_catalog.pg_relation_size(NULLIF(c.reltoastrelid, 0)), 0) ELSE 0 END,
       c.relrowsecurity, c.relforcerowsecurity, c.relispartition, c.relispopulated,
       COALESCE(cfg.extname, ''), COALESCE(cfg.cond, ''),
       -- NULL for what was dropped after the snapshot: no right is missing, the reader finds out that it is gone
       COALESCE(pg_catalog.has_table_privilege(c.oid, 'SELECT')
                AND pg_catalog.has_schema_privilege(n.oid, 'USAGE'), true)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT CASE WHEN c.relkind IN ('r', 'm')
                                THEN COALESCE(pg_catalog.pg_relation_size(c.oid), 0) ELSE 0 END AS heap OFFSET 0) s
LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
LEFT JOIN pg_catalog.pg_depend d
       ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.objsubid = 0
      AND d.deptype = 'e'
LEFT JOIN (SELECT e.extname, u.oid, u.cond
           FROM pg_catalog.pg_extension e
           CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(e.extconfig), pg_catalog.unnest(e.extcondition)) AS u(oid, cond)) cfg ON cfg.oid = c.oid
WHERE c.relkind IN ('r', 'p', 'm', 'f')
  AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND (d.objid IS NULL OR cfg.oid IS NOT NULL)
ORDER BY n.nspname, c.relname

-- name: columns
-- Live columns of all user relations, grouped by the caller.
SELECT a.attrelid::bigint, a.attnum::int, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
       a.attgenerated::text, a.attidentity::text
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm', 'f') AND c.relpersistence <> 't' AND a.attnum > 0 AND NOT a.attisdropped
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
ORDER BY a.attrelid, a.attnum

-- name: unstable_roots
-- Leaves below a hash partitioning by enum, with the top of their tree: enum values hash by OID, so the same row
-- belongs to another leaf on another server and must be loaded through the root (as pg_dump 16 does).
WITH RECURSIVE unsafe AS (
    SELECT p.partrelid FROM pg_catalog.pg_partitioned_table p
    WHERE EXISTS (SELECT FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_am a ON a.oid = o.opcmethod
                  WHERE o.oid = ANY (p.partclass) AND a.amname = 'hash' AND o.opcname = 'enum_ops'
                    AND o.opcnamespace = 'pg_catalog'::pg_catalog.regnamespace)
), tree AS (
    SELECT u.partrelid AS oid FROM unsafe u
    UNION
    SELECT i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid
)
SELECT t.oid::bigint, n.nspname, c.relname
FROM tree t
JOIN pg_catalog.pg_class leaf ON leaf.oid = t.oid AND leaf.relkind = 'r'
JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.pg_partition_root(t.oid)
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace

-- name: sequences
-- All sequences that are not an extension's own (its configuration sequences are user state); whether the role may
-- read them, and whether nobody can, here.
SELECT n.nspname, c.relname, pg_catalog.pg_get_userbyid(c.relowner),
       pg_catalog.has_sequence_privilege(c.oid, 'SELECT') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
       c.relpersistence = 'u' AND pg_catalog.pg_is_in_recovery()
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND (NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                   WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                     AND d.deptype = 'e')
       OR EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE c.oid = ANY (e.extconfig)))
ORDER BY n.nspname, c.relname

-- name: large_objects
-- Metadata, and whether this role may read the contents.
SELECT m.oid::bigint, pg_catalog.pg_get_userbyid(m.lomowner), m.lomacl::text[],
       COALESCE(pg_catalog.obj_description(m.oid, 'pg_largeobject'), ''),
       (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
       OR pg_catalog.pg_has_role(m.lomowner, 'USAGE')
       OR pg_catalog.current_setting('lo_compat_privileges')::boolean
       OR EXISTS (SELECT FROM pg_catalog.aclexplode(m.lomacl) a
                  WHERE a.privilege_type = 'SELECT'
                    AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE')))
FROM pg_catalog.pg_largeobject_metadata m
ORDER BY m.oid

-- name: large_object_sizes
-- Sizes by opening and seeking (262144 = INV_READ); the parameter is an array of oids.
SELECT m.oid::bigint, s.size, pg_catalog.lo_close(f.fd)
FROM pg_catalog.pg_largeobject_metadata m
CROSS JOIN LATERAL (SELECT pg_catalog.lo_open(m.oid, 262144) AS fd OFFSET 0) f
CROSS JOIN LATERAL (SELECT pg_catalog.lo_lseek64(f.fd, 0, 2) AS size OFFSET 0) s
WHERE m.oid = ANY (%s::oid[])

-- name: roles
-- Roles and their cluster-wide settings; %(passwords)s is replaced by the column or NULL where it may not be read.
SELECT r.rolname, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin, r.rolreplication,
       r.rolbypassrls, r.rolconnlimit, COALESCE(r.rolvaliduntil::text, ''), {password},
       COALESCE(s.setconfig, '{{}}'::text[]), COALESCE(pg_catalog.shobj_description(r.oid, 'pg_authid'), ''),
       r.oid = 10
FROM {relation} r
LEFT JOIN pg_catalog.pg_db_role_setting s ON s.setrole = r.oid AND s.setdatabase = 0
WHERE r.rolname !~ '^pg_'
ORDER BY r.rolname

-- name: memberships
-- Who is a member of what; options exist since 16.
SELECT r.rolname, m.rolname, g.rolname, a.admin_option, {inherit}, {set}
FROM pg_catalog.pg_auth_members a
JOIN pg_catalog.pg_roles r ON r.oid = a.roleid
JOIN pg_catalog.pg_roles m ON m.oid = a.member
LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantor
ORDER BY 1, 2, 3

-- name: database
-- The database this session is connected to.
SELECT d.datname, pg_catalog.pg_get_userbyid(d.datdba), pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate,
       d.datctype, {provider}, {locale}, d.datacl::text[], COALESCE(pg_catalog.shobj_description(d.oid, 'pg_database'), ''),
       COALESCE((SELECT s.setconfig FROM pg_catalog.pg_db_role_setting s
                 WHERE s.setdatabase = d.oid AND s.setrole = 0), '{{}}'::text[]),
       d.datconnlimit
FROM pg_catalog.pg_database d
WHERE d.datname = pg_catalog.current_database()

-- name: database_role_settings
-- ALTER ROLE x IN DATABASE this SET ...
SELECT r.rolname, u.setting
FROM pg_catalog.pg_db_role_setting s
JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase AND d.datname = pg_catalog.current_database()
JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS u(setting)
ORDER BY 1, 2

-- name: extensions
-- Installed extensions but the built-in one.
SELECT e.extname, e.extversion, n.nspname
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname <> 'plpgsql'
ORDER BY 1

-- name: relation_readable
-- Whether a platform's relation exists and this role may read it. Only a superuser's own counts: a tenant's view of
-- the same name would run the tenant's functions with our rights.
SELECT pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_roles r ON r.oid = c.relowner AND r.rolsuper
WHERE n.nspname = %s AND c.relname = %s

-- name: secrets
-- Vault secrets in clear text; they leave this machine only inside sealed bytes.
SELECT COALESCE(s.name, ''), COALESCE(s.description, ''), s.decrypted_secret
FROM vault.decrypted_secrets s
ORDER BY s.created_at, s.id

-- name: cron_columns
-- Which columns this pg_cron has.
SELECT a.attname FROM pg_catalog.pg_attribute a
WHERE a.attrelid = 'cron.job'::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped

-- name: cron_jobs
-- Scheduled jobs.
SELECT COALESCE(j.{jobname}, ''), j.schedule, j.command, j.database, j.username, j.active
FROM cron.job j ORDER BY j.jobid

-- name: names
-- All roles and schemas, to recognise the platform. One whose administrator may not log in is a platform that is gone:
-- its snapshot was restored into a plain server.
SELECT ARRAY(SELECT r.rolname::text FROM pg_catalog.pg_roles r WHERE r.rolname <> 'supabase_admin' OR r.rolcanlogin), ARRAY(SELECT n.nspname::text FROM pg_catalog.pg_namespace n)

-- name: identity
-- Version and system identifier ('' where the role may not ask).
SELECT pg_catalog.current_setting('server_version_num')::int
