-- The whole catalog of user state, one row per object: identity and attributes (jsonb). postgres/inventory.py fills in
--   $own(catalog, alias)   not a system object, not created by an extension
--   $acl(acl, kind, owner) effective privileges as a sorted array of `grantee=privilege*/grantor`
-- search_path is empty; nothing here casts, compares or prints a value of a user's type.

-- name: schema
SELECT pg_catalog.quote_ident(o.nspname),
       pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(o.nspowner), 'acl', $acl(o.nspacl, n, o.nspowner),
         'comment', pg_catalog.obj_description(o.oid, 'pg_namespace'))
FROM pg_catalog.pg_namespace o
WHERE o.nspname !~ '^pg_' AND o.nspname NOT IN ('information_schema', 'pgkura_restore') AND $own(pg_namespace, o)

-- name: extension
SELECT pg_catalog.quote_ident(o.extname),
       pg_catalog.jsonb_build_object('version', o.extversion, 'schema', n.nspname, 'comment', pg_catalog.obj_description(o.oid, 'pg_extension'))
FROM pg_catalog.pg_extension o JOIN pg_catalog.pg_namespace n ON n.oid = o.extnamespace

-- name: relation
SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(o.relname),
       pg_catalog.jsonb_build_object('kind', o.relkind, 'owner', pg_catalog.pg_get_userbyid(o.relowner), 'persistence', o.relpersistence,
         'access_method', am.amname, 'options', (SELECT pg_catalog.array_agg(u ORDER BY u) FROM pg_catalog.unnest(o.reloptions) u),
         'toast_options', (SELECT pg_catalog.array_agg(u ORDER BY u) FROM pg_catalog.pg_class t CROSS JOIN LATERAL pg_catalog.unnest(t.reloptions) u WHERE t.oid = o.reltoastrelid),
         'row_security', o.relrowsecurity, 'force_row_security', o.relforcerowsecurity,
         'replica_identity', CASE WHEN o.relkind IN ('r', 'p') THEN o.relreplident END,
         'populated', CASE WHEN o.relkind = 'm' THEN o.relispopulated END,
         'partition_bound', pg_catalog.pg_get_expr(o.relpartbound, o.oid),
         'partition_key', CASE WHEN o.relkind = 'p' THEN pg_catalog.pg_get_partkeydef(o.oid) END,
         'parents', (SELECT pg_catalog.array_agg((pg_catalog.pg_identify_object(1259, i.inhparent, 0)).identity ORDER BY i.inhseqno)
                     FROM pg_catalog.pg_inherits i WHERE i.inhrelid = o.oid),
         'of_type', CASE WHEN o.reloftype <> 0 THEN pg_catalog.format_type(o.reloftype, NULL) END,
         'definition', CASE WHEN o.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(o.oid) END,
         'acl', CASE WHEN o.relkind <> 'c' THEN $acl(o.relacl, CASE o.relkind WHEN 'S' THEN 's' ELSE 'r' END, o.relowner) END,
         'sequence', CASE WHEN o.relkind = 'S' THEN (SELECT pg_catalog.jsonb_build_array(pg_catalog.format_type(s.seqtypid, NULL), s.seqstart::text, s.seqincrement::text,
                       s.seqmax::text, s.seqmin::text, s.seqcache::text, s.seqcycle) FROM pg_catalog.pg_sequence s WHERE s.seqrelid = o.oid) END,
         'owned_by', (SELECT (pg_catalog.pg_identify_object(1259, d.refobjid, d.refobjsubid)).identity FROM pg_catalog.pg_depend d
                      WHERE o.relkind = 'S' AND d.classid = 1259 AND d.objid = o.oid AND d.deptype IN ('a', 'i') AND d.refclassid = 1259 AND d.refobjsubid > 0 LIMIT 1),
         'server', CASE WHEN o.relkind = 'f' THEN (SELECT s.srvname FROM pg_catalog.pg_foreign_table f JOIN pg_catalog.pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = o.oid) END,
         'foreign_options', CASE WHEN o.relkind = 'f' THEN (SELECT (SELECT pg_catalog.md5(pg_catalog.string_agg(u, ',' ORDER BY u)) FROM pg_catalog.unnest(f.ftoptions) u) FROM pg_catalog.pg_foreign_table f WHERE f.ftrelid = o.oid) END,
         'comment', said.description)
FROM pg_catalog.pg_class o JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace LEFT JOIN pg_catalog.pg_am am ON am.oid = o.relam
LEFT JOIN pg_catalog.pg_description said ON said.objoid = o.oid AND said.classoid = 1259 AND said.objsubid = 0
WHERE o.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND o.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgkura_restore')
  AND $own(pg_class, o)

-- name: column
SELECT o.name || '.' || pg_catalog.quote_ident(a.attname),
       pg_catalog.jsonb_build_object('of', o.name, 'place', CASE WHEN o.relispartition OR NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = o.oid)
           THEN pg_catalog.row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum) END,
         'type', pg_catalog.format_type(a.atttypid, a.atttypmod), 'not_null', a.attnotnull, 'default', pg_catalog.pg_get_expr(d.adbin, d.adrelid),
         'identity', a.attidentity, 'generated', a.attgenerated,
         'collation', CASE WHEN a.attcollation <> t.typcollation THEN (pg_catalog.pg_identify_object(3456, a.attcollation, 0)).identity END,
         'storage', CASE WHEN a.attstorage <> t.typstorage THEN a.attstorage END, 'compression', a.attcompression,
         'statistics', CASE WHEN a.attstattarget >= 0 THEN a.attstattarget END,
         'options', a.attoptions, 'foreign_options', CASE WHEN a.attfdwoptions IS NOT NULL THEN (SELECT pg_catalog.md5(pg_catalog.string_agg(u, ',' ORDER BY u)) FROM pg_catalog.unnest(a.attfdwoptions) u) END,
         'acl', CASE WHEN a.attacl IS NOT NULL THEN $acl(a.attacl, c, o.relowner) END,
         'comment', said.description)
FROM pg_catalog.pg_attribute a
-- what is said of a relation is worked out once, not for each of its columns
JOIN (SELECT o.oid, o.relowner, o.relispartition, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(o.relname) AS name
      FROM pg_catalog.pg_class o JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace
      WHERE o.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND o.relpersistence <> 't'
        AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgkura_restore') AND $own(pg_class, o)
      OFFSET 0) o ON o.oid = a.attrelid
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_catalog.pg_description said ON said.objoid = a.attrelid AND said.classoid = 1259 AND said.objsubid = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped

-- name: constraint
SELECT (pg_catalog.pg_identify_object(2606, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('of', CASE WHEN o.conrelid <> 0 THEN (pg_catalog.pg_identify_object(1259, o.conrelid, 0)).identity END, 'definition', pg_catalog.pg_get_constraintdef(o.oid), 'validated', o.convalidated, 'no_inherit', o.contype = 'c' AND o.connoinherit,
         'comment', pg_catalog.obj_description(o.oid, 'pg_constraint'))
FROM pg_catalog.pg_constraint o JOIN pg_catalog.pg_namespace n ON n.oid = o.connamespace
WHERE o.contype IN ('c', 'f', 'p', 'u', 'x') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgkura_restore')
  AND NOT (o.contype = 'f' AND o.conparentid <> 0)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND ((d.classid = 1259 AND d.objid = o.conrelid) OR (d.classid = 1247 AND d.objid = o.contypid)))

-- name: index
SELECT (pg_catalog.pg_identify_object(1259, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('of', (pg_catalog.pg_identify_object(1259, i.indrelid, 0)).identity, 'definition', pg_catalog.pg_get_indexdef(o.oid), 'valid', i.indisvalid, 'clustered', i.indisclustered, 'replica_identity', i.indisreplident,
         'statistics', (SELECT pg_catalog.array_agg(a.attnum || ':' || a.attstattarget ORDER BY a.attnum) FROM pg_catalog.pg_attribute a WHERE a.attrelid = o.oid AND a.attstattarget >= 0),
         'parent', (SELECT (pg_catalog.pg_identify_object(1259, h.inhparent, 0)).identity FROM pg_catalog.pg_inherits h WHERE h.inhrelid = o.oid),
         'comment', pg_catalog.obj_description(o.oid, 'pg_class'))
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class o ON o.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgkura_restore') AND o.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.classid = 1259 AND d.objid = i.indrelid)

-- name: trigger
SELECT (pg_catalog.pg_identify_object(2620, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('of', (pg_catalog.pg_identify_object(1259, o.tgrelid, 0)).identity, 'definition', pg_catalog.pg_get_triggerdef(o.oid), 'enabled', o.tgenabled, 'comment', pg_catalog.obj_description(o.oid, 'pg_trigger'))
FROM pg_catalog.pg_trigger o LEFT JOIN pg_catalog.pg_trigger p ON p.oid = o.tgparentid
-- a partition's copy of a trigger is state of its own only where it is switched otherwise
WHERE CASE WHEN o.tgparentid = 0 THEN NOT o.tgisinternal ELSE NOT p.tgisinternal AND o.tgenabled <> p.tgenabled END AND $own(pg_trigger, o)

-- name: rule
SELECT (pg_catalog.pg_identify_object(2618, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('of', (pg_catalog.pg_identify_object(1259, o.ev_class, 0)).identity, 'definition', pg_catalog.pg_get_ruledef(o.oid), 'enabled', o.ev_enabled, 'comment', pg_catalog.obj_description(o.oid, 'pg_rewrite'))
FROM pg_catalog.pg_rewrite o WHERE o.rulename <> '_RETURN' AND o.oid >= 16384 AND $own(pg_rewrite, o)

-- name: policy
SELECT (pg_catalog.pg_identify_object(3256, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('of', (pg_catalog.pg_identify_object(1259, o.polrelid, 0)).identity, 'command', o.polcmd, 'permissive', o.polpermissive,
         'roles', (SELECT pg_catalog.array_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(r)::text END ORDER BY pg_catalog.pg_get_userbyid(r)) FROM pg_catalog.unnest(o.polroles) r),
         'using', pg_catalog.pg_get_expr(o.polqual, o.polrelid), 'check', pg_catalog.pg_get_expr(o.polwithcheck, o.polrelid),
         'comment', pg_catalog.obj_description(o.oid, 'pg_policy'))
FROM pg_catalog.pg_policy o

-- name: function
SELECT (pg_catalog.pg_identify_object(1255, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('definition', CASE WHEN o.prokind <> 'a' THEN pg_catalog.pg_get_functiondef(o.oid) END, 'kind', o.prokind,
         'result', CASE WHEN o.prokind = 'a' THEN pg_catalog.format_type(o.prorettype, NULL) END,
         'aggregate', (SELECT pg_catalog.jsonb_build_array(a.aggkind, a.aggtransfn::text, a.aggfinalfn::text, a.aggcombinefn::text, pg_catalog.format_type(a.aggtranstype, NULL), a.agginitval, a.aggmtransfn::text, a.aggminvtransfn::text, a.aggmfinalfn::text, a.aggminitval, o.proparallel,
                              CASE WHEN a.aggsortop <> 0 THEN (pg_catalog.pg_identify_object(2617, a.aggsortop, 0)).identity END)
                       FROM pg_catalog.pg_aggregate a WHERE a.aggfnoid = o.oid),
         'owner', pg_catalog.pg_get_userbyid(o.proowner), 'acl', $acl(o.proacl, f, o.proowner), 'comment', pg_catalog.obj_description(o.oid, 'pg_proc'))
FROM pg_catalog.pg_proc o JOIN pg_catalog.pg_namespace n ON n.oid = o.pronamespace
WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgkura_restore') AND $own(pg_proc, o)

-- name: type
SELECT (pg_catalog.pg_identify_object(1247, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('kind', o.typtype, 'owner', pg_catalog.pg_get_userbyid(o.typowner),
         'labels', (SELECT pg_catalog.array_agg(e.enumlabel::text ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e WHERE e.enumtypid = o.oid),
         'base', CASE WHEN o.typtype = 'd' THEN pg_catalog.format_type(o.typbasetype, o.typtypmod) END, 'not_null', o.typnotnull, 'default', o.typdefault,
         'subtype', (SELECT pg_catalog.format_type(r.rngsubtype, NULL) FROM pg_catalog.pg_range r WHERE r.rngtypid = o.oid),
         'collation', CASE WHEN o.typcollation NOT IN (0, 100) THEN (pg_catalog.pg_identify_object(3456, o.typcollation, 0)).identity END,
         'input', CASE WHEN o.typtype = 'b' THEN o.typinput::text END,
         'acl', $acl(o.typacl, T, o.typowner), 'comment', pg_catalog.obj_description(o.oid, 'pg_type'))
FROM pg_catalog.pg_type o JOIN pg_catalog.pg_namespace n ON n.oid = o.typnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgkura_restore') AND o.typtype IN ('e', 'd', 'r', 'b', 'p')
  AND o.typelem = 0 AND $own(pg_type, o)

-- name: operator
SELECT (pg_catalog.pg_identify_object(2617, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(o.oprowner), 'function', o.oprcode::text, 'merges', o.oprcanmerge, 'hashes', o.oprcanhash,
         'commutator', CASE WHEN o.oprcom <> 0 THEN (pg_catalog.pg_identify_object(2617, o.oprcom, 0)).identity END,
         'negator', CASE WHEN o.oprnegate <> 0 THEN (pg_catalog.pg_identify_object(2617, o.oprnegate, 0)).identity END,
         'restrict', o.oprrest::text, 'join', o.oprjoin::text, 'comment', pg_catalog.obj_description(o.oid, 'pg_operator'))
FROM pg_catalog.pg_operator o WHERE o.oid >= 16384 AND $own(pg_operator, o)

-- name: operator_class
SELECT (pg_catalog.pg_identify_object(2616, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(o.opcowner), 'default', o.opcdefault, 'family', (pg_catalog.pg_identify_object(2753, o.opcfamily, 0)).identity,
         'comment', pg_catalog.obj_description(o.oid, 'pg_opclass'))
FROM pg_catalog.pg_opclass o WHERE o.oid >= 16384 AND $own(pg_opclass, o)

-- name: operator_family
SELECT (pg_catalog.pg_identify_object(2753, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(o.opfowner),
         'operators', (SELECT pg_catalog.array_agg((pg_catalog.pg_identify_object(2602, a.oid, 0)).identity ORDER BY (pg_catalog.pg_identify_object(2602, a.oid, 0)).identity) FROM pg_catalog.pg_amop a WHERE a.amopfamily = o.oid),
         'functions', (SELECT pg_catalog.array_agg((pg_catalog.pg_identify_object(2603, a.oid, 0)).identity ORDER BY (pg_catalog.pg_identify_object(2603, a.oid, 0)).identity) FROM pg_catalog.pg_amproc a WHERE a.amprocfamily = o.oid),
         'comment', pg_catalog.obj_description(o.oid, 'pg_opfamily'))
FROM pg_catalog.pg_opfamily o WHERE o.oid >= 16384 AND $own(pg_opfamily, o)

-- name: cast
SELECT (pg_catalog.pg_identify_object(2605, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('context', o.castcontext, 'method', o.castmethod, 'function', CASE WHEN o.castfunc <> 0 THEN (pg_catalog.pg_identify_object(1255, o.castfunc, 0)).identity END,
         'comment', pg_catalog.obj_description(o.oid, 'pg_cast'))
FROM pg_catalog.pg_cast o WHERE o.oid >= 16384 AND $own(pg_cast, o)

-- name: collation
SELECT (pg_catalog.pg_identify_object(3456, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(o.collowner), 'provider', o.collprovider, 'deterministic', o.collisdeterministic, 'locale', COALESCE(o.collcollate, pg_catalog.to_jsonb(o) ->> 'colliculocale', pg_catalog.to_jsonb(o) ->> 'colllocale'),
         'ctype', CASE o.collprovider WHEN 'c' THEN o.collctype END,
         'comment', pg_catalog.obj_description(o.oid, 'pg_collation'))
FROM pg_catalog.pg_collation o WHERE o.oid >= 16384 AND $own(pg_collation, o)

-- name: conversion
SELECT (pg_catalog.pg_identify_object(2607, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(o.conowner), 'function', o.conproc::text, 'default', o.condefault, 'comment', pg_catalog.obj_description(o.oid, 'pg_conversion'))
FROM pg_catalog.pg_conversion o WHERE o.oid >= 16384 AND $own(pg_conversion, o)

-- name: text_search_configuration
SELECT (pg_catalog.pg_identify_object(3602, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(o.cfgowner), 'parser', (pg_catalog.pg_identify_object(3601, o.cfgparser, 0)).identity,
         'map', (SELECT pg_catalog.array_agg(m.maptokentype || ':' || m.mapseqno || ':' || (pg_catalog.pg_identify_object(3600, m.mapdict, 0)).identity ORDER BY m.maptokentype, m.mapseqno)
                 FROM pg_catalog.pg_ts_config_map m WHERE m.mapcfg = o.oid), 'comment', pg_catalog.obj_description(o.oid, 'pg_ts_config'))
FROM pg_catalog.pg_ts_config o WHERE o.oid >= 16384 AND $own(pg_ts_config, o)

-- name: text_search_dictionary
SELECT (pg_catalog.pg_identify_object(3600, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(o.dictowner), 'options', o.dictinitoption, 'template', (pg_catalog.pg_identify_object(3764, o.dicttemplate, 0)).identity,
         'comment', pg_catalog.obj_description(o.oid, 'pg_ts_dict'))
FROM pg_catalog.pg_ts_dict o WHERE o.oid >= 16384 AND $own(pg_ts_dict, o)

-- name: text_search_parser
SELECT (pg_catalog.pg_identify_object(3601, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('start', o.prsstart::text, 'token', o.prstoken::text, 'end', o.prsend::text, 'types', o.prslextype::text, 'headline', o.prsheadline::text,
         'comment', pg_catalog.obj_description(o.oid, 'pg_ts_parser'))
FROM pg_catalog.pg_ts_parser o WHERE o.oid >= 16384 AND $own(pg_ts_parser, o)

-- name: text_search_template
SELECT (pg_catalog.pg_identify_object(3764, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('init', o.tmplinit::text, 'lexize', o.tmpllexize::text, 'comment', pg_catalog.obj_description(o.oid, 'pg_ts_template'))
FROM pg_catalog.pg_ts_template o WHERE o.oid >= 16384 AND $own(pg_ts_template, o)

-- name: access_method
SELECT pg_catalog.quote_ident(o.amname),
       pg_catalog.jsonb_build_object('kind', o.amtype, 'handler', (pg_catalog.pg_identify_object(1255, o.amhandler::oid, 0)).identity, 'comment', pg_catalog.obj_description(o.oid, 'pg_am'))
FROM pg_catalog.pg_am o WHERE o.oid >= 16384 AND $own(pg_am, o)

-- name: transform
-- pg_identify_object words it differently since 16
SELECT 'for ' || pg_catalog.format_type(o.trftype, NULL) || ' language ' || pg_catalog.quote_ident(l.lanname),
       pg_catalog.jsonb_build_object('from_sql', CASE WHEN o.trffromsql <> 0 THEN (pg_catalog.pg_identify_object(1255, o.trffromsql, 0)).identity END,
         'to_sql', CASE WHEN o.trftosql <> 0 THEN (pg_catalog.pg_identify_object(1255, o.trftosql, 0)).identity END, 'comment', pg_catalog.obj_description(o.oid, 'pg_transform'))
FROM pg_catalog.pg_transform o JOIN pg_catalog.pg_language l ON l.oid = o.trflang WHERE o.oid >= 16384 AND $own(pg_transform, o)

-- name: language
SELECT pg_catalog.quote_ident(o.lanname),
       pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(o.lanowner), 'trusted', o.lanpltrusted, 'handler', (pg_catalog.pg_identify_object(1255, o.lanplcallfoid, 0)).identity,
         'acl', $acl(o.lanacl, l, o.lanowner), 'comment', pg_catalog.obj_description(o.oid, 'pg_language'))
FROM pg_catalog.pg_language o WHERE o.oid >= 16384 AND $own(pg_language, o)

-- name: event_trigger
SELECT pg_catalog.quote_ident(o.evtname),
       pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(o.evtowner), 'event', o.evtevent, 'enabled', o.evtenabled, 'tags', o.evttags,
         'function', (pg_catalog.pg_identify_object(1255, o.evtfoid, 0)).identity, 'comment', pg_catalog.obj_description(o.oid, 'pg_event_trigger'))
FROM pg_catalog.pg_event_trigger o WHERE $own(pg_event_trigger, o)

-- name: publication
SELECT pg_catalog.quote_ident(o.pubname),
       pg_catalog.to_jsonb(o) - 'oid' - 'pubowner' - 'pubname' || pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(o.pubowner), 'comment', pg_catalog.obj_description(o.oid, 'pg_publication'),
         'tables', (SELECT pg_catalog.array_agg((pg_catalog.to_jsonb(t) - 'attnames' - 'pubname' || pg_catalog.jsonb_build_object('columns',
             (SELECT pg_catalog.string_agg(x, ',' ORDER BY x) FROM pg_catalog.jsonb_array_elements_text(COALESCE(NULLIF(pg_catalog.to_jsonb(t) -> 'attnames', 'null'), '[]')) x)))::text
             ORDER BY t.schemaname, t.tablename)
           FROM pg_catalog.pg_publication_tables t
           WHERE t.pubname = o.pubname AND EXISTS (SELECT FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = o.oid AND n.nspname = t.schemaname AND c.relname = t.tablename)),
         'explicit', (SELECT pg_catalog.array_agg((pg_catalog.pg_identify_object(1259, r.prrelid, 0)).identity ORDER BY (pg_catalog.pg_identify_object(1259, r.prrelid, 0)).identity)
                      FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = o.oid))
FROM pg_catalog.pg_publication o

-- name: publication_schema
-- since 15
SELECT pg_catalog.quote_ident(p.pubname) || ' publishes schema ' || pg_catalog.quote_ident(n.nspname), pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(p.pubowner))
FROM pg_catalog.pg_publication_namespace o JOIN pg_catalog.pg_publication p ON p.oid = o.pnpubid JOIN pg_catalog.pg_namespace n ON n.oid = o.pnnspid

-- name: subscription
-- The columns that anybody may read. Whether it is enabled is left out: no restore begins to replicate by itself.
SELECT pg_catalog.quote_ident(o.subname),
       pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(o.subowner), 'slot', o.subslotname, 'synchronous_commit', o.subsynccommit,
         'publications', (SELECT pg_catalog.array_agg(u ORDER BY u) FROM pg_catalog.unnest(o.subpublications) u), 'comment', pg_catalog.obj_description(o.oid, 'pg_subscription'))
FROM pg_catalog.pg_subscription o JOIN pg_catalog.pg_database d ON d.oid = o.subdbid WHERE d.datname = pg_catalog.current_database()

-- name: foreign_data_wrapper
SELECT pg_catalog.quote_ident(o.fdwname),
       pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(o.fdwowner), 'options', (SELECT pg_catalog.md5(pg_catalog.string_agg(u, ',' ORDER BY u)) FROM pg_catalog.unnest(o.fdwoptions) u), 'acl', $acl(o.fdwacl, F, o.fdwowner), 'comment', pg_catalog.obj_description(o.oid, 'pg_foreign_data_wrapper'))
FROM pg_catalog.pg_foreign_data_wrapper o WHERE $own(pg_foreign_data_wrapper, o)

-- name: server
SELECT pg_catalog.quote_ident(o.srvname),
       pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(o.srvowner), 'type', o.srvtype, 'version', o.srvversion, 'options', (SELECT pg_catalog.md5(pg_catalog.string_agg(u, ',' ORDER BY u)) FROM pg_catalog.unnest(o.srvoptions) u), 'acl', $acl(o.srvacl, S, o.srvowner), 'comment', pg_catalog.obj_description(o.oid, 'pg_foreign_server'))
FROM pg_catalog.pg_foreign_server o WHERE $own(pg_foreign_server, o)

-- name: user_mapping
SELECT pg_catalog.quote_ident(o.srvname) || ' for ' || pg_catalog.quote_ident(o.usename), pg_catalog.jsonb_build_object('options', (SELECT pg_catalog.md5(pg_catalog.string_agg(u, ',' ORDER BY u)) FROM pg_catalog.unnest(o.umoptions) u))
FROM pg_catalog.pg_user_mappings o

-- name: statistics
SELECT (pg_catalog.pg_identify_object(3381, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('definition', pg_catalog.pg_get_statisticsobjdef(o.oid), 'owner', pg_catalog.pg_get_userbyid(o.stxowner), 'comment', pg_catalog.obj_description(o.oid, 'pg_statistic_ext'))
FROM pg_catalog.pg_statistic_ext o WHERE $own(pg_statistic_ext, o)

-- name: default_privileges
SELECT 'for ' || pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(o.defaclrole)) || ' in ' || COALESCE(pg_catalog.quote_ident(n.nspname), 'all schemas') || ' on ' || o.defaclobjtype::text,
       pg_catalog.jsonb_build_object('acl', $acl(o.defaclacl, r, o.defaclrole))
FROM pg_catalog.pg_default_acl o LEFT JOIN pg_catalog.pg_namespace n ON n.oid = o.defaclnamespace

-- name: security_label
SELECT o.objtype || ' ' || o.objname, pg_catalog.jsonb_build_object('provider', o.provider, 'label', o.label)
FROM pg_catalog.pg_seclabels o

-- name: system_privileges
-- What was granted or revoked on PostgreSQL's own functions and relations since initdb; grantors are left out.
SELECT 'function ' || (pg_catalog.pg_identify_object(1255, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(o.proowner), 'granted', $since_init(o.proacl, i.initprivs, f, o.proowner), 'revoked', $since_init(i.initprivs, o.proacl, f, o.proowner))
FROM pg_catalog.pg_proc o JOIN pg_catalog.pg_namespace n ON n.oid = o.pronamespace
LEFT JOIN pg_catalog.pg_init_privs i ON i.objoid = o.oid AND i.classoid = 1255 AND i.objsubid = 0
WHERE n.nspname IN ('pg_catalog', 'information_schema') AND o.proacl IS DISTINCT FROM i.initprivs AND $own(pg_proc, o)
UNION ALL
SELECT 'relation ' || (pg_catalog.pg_identify_object(1259, o.oid, 0)).identity,
       pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(o.relowner), 'granted', $since_init(o.relacl, i.initprivs, r, o.relowner), 'revoked', $since_init(i.initprivs, o.relacl, r, o.relowner))
FROM pg_catalog.pg_class o JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace
LEFT JOIN pg_catalog.pg_init_privs i ON i.objoid = o.oid AND i.classoid = 1259 AND i.objsubid = 0
WHERE n.nspname IN ('pg_catalog', 'information_schema') AND o.relkind IN ('r', 'v') AND o.relacl IS DISTINCT FROM i.initprivs AND $own(pg_class, o)

-- name: parameter
-- since 15
SELECT pg_catalog.quote_ident(o.parname), pg_catalog.jsonb_build_object('owner', pg_catalog.pg_get_userbyid(10), 'acl', $acl(o.paracl, p, 10))
FROM pg_catalog.pg_parameter_acl o
