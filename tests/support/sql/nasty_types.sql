-- Extensions, types, collations, conversions, text search, operators, casts.
-- Variables: super, contrib, icu (bool).

CREATE SCHEMA nasty;
CREATE SCHEMA extensions;
CREATE SCHEMA "naïve schéma";
CREATE SCHEMA "日本語スキーマ";
CREATE SCHEMA "quo""te.dot $x";
CREATE SCHEMA empty_schema;
SET search_path = nasty, public;

\if :contrib
CREATE EXTENSION pgcrypto SCHEMA extensions;
CREATE EXTENSION hstore SCHEMA extensions;
CREATE EXTENSION citext SCHEMA extensions;
CREATE EXTENSION btree_gist SCHEMA extensions;
CREATE EXTENSION "uuid-ossp" SCHEMA extensions;
CREATE EXTENSION pg_trgm SCHEMA extensions;
CREATE EXTENSION ltree;
COMMENT ON EXTENSION ltree IS 'a comment of ours on an extension';
\endif

-- enums: order by sort position, with labels added in the middle, quoted and long
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
ALTER TYPE mood ADD VALUE 'meh' BEFORE 'ok';
ALTER TYPE mood ADD VALUE 'it''s "fine"' AFTER 'ok';
ALTER TYPE mood ADD VALUE '喜び🎉';
ALTER TYPE mood RENAME VALUE 'sad' TO 'SAD';
CREATE TYPE empty_enum AS ENUM ();
CREATE TYPE "Reservation Status" AS ENUM ('pending', 'approved', 'cancelled');

-- domains: over base, over domain, over array, over composite; constraints named, NOT VALID, NOT NULL, default
CREATE DOMAIN positive AS integer DEFAULT 1 CONSTRAINT is_positive CHECK (VALUE > 0) NOT NULL;
CREATE DOMAIN small_positive AS positive CHECK (VALUE < 1000);
CREATE DOMAIN tag_list AS text[] CHECK (cardinality(VALUE) < 10);
CREATE DOMAIN "mail address" AS text COLLATE "C" CHECK (VALUE ~ '^[^@]+@[^@]+$');
ALTER DOMAIN "mail address" ADD CONSTRAINT short CHECK (length(VALUE) < 300) NOT VALID;

CREATE TYPE point3 AS (x double precision, y double precision, z double precision);
CREATE TYPE "weird composite" AS ("a b" integer, "c""d" text COLLATE "C", moods mood[], nested point3);
ALTER TYPE "weird composite" ADD ATTRIBUTE dropped_later integer;
ALTER TYPE "weird composite" DROP ATTRIBUTE dropped_later;
CREATE DOMAIN origin_point AS point3 CHECK ((VALUE).x > -1000);

CREATE FUNCTION mood_distance(a double precision, b double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE STRICT AS 'SELECT a - b';
CREATE TYPE float_range AS RANGE (subtype = double precision, subtype_diff = mood_distance, multirange_type_name = float_multi);
CREATE TYPE text_range AS RANGE (subtype = text, collation = "C");
CREATE TYPE mood_range AS RANGE (subtype = mood);

CREATE COLLATION posix_copy FROM "C";
CREATE COLLATION posix_libc (provider = libc, lc_collate = 'POSIX', lc_ctype = 'POSIX');
\if :icu
CREATE COLLATION "日本語順" (provider = icu, locale = 'ja');
CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
\endif

CREATE CONVERSION latin_conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE DEFAULT CONVERSION default_conversion FOR 'LATIN2' TO 'UTF8' FROM iso8859_to_utf8;

CREATE TEXT SEARCH DICTIONARY simple_no_stop (TEMPLATE = simple, ACCEPT = false);
CREATE TEXT SEARCH CONFIGURATION lesson_search (COPY = english);
ALTER TEXT SEARCH CONFIGURATION lesson_search ALTER MAPPING FOR asciiword, word WITH simple_no_stop, english_stem;
ALTER TEXT SEARCH CONFIGURATION lesson_search DROP MAPPING FOR url;
\if :super
CREATE TEXT SEARCH TEMPLATE plain_template (INIT = dsimple_init, LEXIZE = dsimple_lexize);
CREATE TEXT SEARCH PARSER plain_parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
CREATE TEXT SEARCH DICTIONARY from_template (TEMPLATE = plain_template);
\endif

-- operators with commutator, negator, selectivity; one unary; one in a quoted schema
CREATE FUNCTION point3_eq(point3, point3) RETURNS boolean LANGUAGE sql IMMUTABLE
    AS $$ SELECT ($1).x = ($2).x AND ($1).y = ($2).y AND ($1).z = ($2).z $$;
CREATE FUNCTION point3_ne(point3, point3) RETURNS boolean LANGUAGE sql IMMUTABLE
    AS $$ SELECT ($1).x <> ($2).x OR ($1).y <> ($2).y OR ($1).z <> ($2).z $$;
CREATE FUNCTION point3_lt(point3, point3) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT ($1).x < ($2).x $$;
CREATE FUNCTION point3_le(point3, point3) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT ($1).x <= ($2).x $$;
CREATE FUNCTION point3_gt(point3, point3) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT ($1).x > ($2).x $$;
CREATE FUNCTION point3_ge(point3, point3) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT ($1).x >= ($2).x $$;
CREATE FUNCTION point3_cmp(point3, point3) RETURNS integer LANGUAGE sql IMMUTABLE
    AS $$ SELECT sign(($1).x - ($2).x)::integer $$;
CREATE FUNCTION point3_norm(point3) RETURNS double precision LANGUAGE sql IMMUTABLE
    AS $$ SELECT sqrt(($1).x ^ 2 + ($1).y ^ 2 + ($1).z ^ 2) $$;
CREATE OPERATOR === (FUNCTION = point3_eq, LEFTARG = point3, RIGHTARG = point3, COMMUTATOR = ===, NEGATOR = !==,
                     RESTRICT = eqsel, JOIN = eqjoinsel);
CREATE OPERATOR !== (FUNCTION = point3_ne, LEFTARG = point3, RIGHTARG = point3, COMMUTATOR = !==, NEGATOR = ===);
CREATE OPERATOR <<< (FUNCTION = point3_lt, LEFTARG = point3, RIGHTARG = point3);
CREATE OPERATOR <<= (FUNCTION = point3_le, LEFTARG = point3, RIGHTARG = point3);
CREATE OPERATOR >>> (FUNCTION = point3_gt, LEFTARG = point3, RIGHTARG = point3);
CREATE OPERATOR >>= (FUNCTION = point3_ge, LEFTARG = point3, RIGHTARG = point3);
CREATE OPERATOR "naïve schéma".@@@ (FUNCTION = point3_norm, RIGHTARG = point3);

CREATE FUNCTION point3_to_text(point3) RETURNS text LANGUAGE sql IMMUTABLE
    AS $$ SELECT '<' || ($1).x::text || '>' $$;
CREATE FUNCTION mood_to_int(mood) RETURNS integer LANGUAGE sql IMMUTABLE
    AS $$ SELECT CASE $1 WHEN 'happy' THEN 2 ELSE 1 END $$;
CREATE CAST (point3 AS text) WITH FUNCTION point3_to_text(point3) AS ASSIGNMENT;
CREATE CAST (mood AS integer) WITH FUNCTION mood_to_int(mood);
CREATE CAST (point3 AS name) WITH INOUT;

\if :super
CREATE OPERATOR FAMILY point3_family USING btree;
CREATE OPERATOR CLASS point3_ops DEFAULT FOR TYPE point3 USING btree FAMILY point3_family AS
    OPERATOR 1 <<<, OPERATOR 2 <<=, OPERATOR 3 ===, OPERATOR 4 >>=, OPERATOR 5 >>>,
    FUNCTION 1 point3_cmp(point3, point3);
CREATE OPERATOR FAMILY empty_family USING hash;

-- a base type with built-in C functions, a cast without function, a table access method, a language, a transform
CREATE TYPE shell_only;
CREATE TYPE base_number;
CREATE FUNCTION base_number_in(cstring) RETURNS base_number LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION base_number_out(base_number) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE TYPE base_number (INPUT = base_number_in, OUTPUT = base_number_out, LIKE = integer, CATEGORY = 'N', DEFAULT = '42');
CREATE CAST (base_number AS integer) WITHOUT FUNCTION AS IMPLICIT;
CREATE ACCESS METHOD second_heap TYPE TABLE HANDLER heap_tableam_handler;
COMMENT ON ACCESS METHOD second_heap IS 'the heap by another name';
-- with handlers of its own: pg_dump takes a language whose handlers are the extension's for an extension
CREATE FUNCTION second_call() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE FUNCTION second_inline(internal) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_inline_handler';
CREATE FUNCTION second_validator(oid) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_validator';
CREATE TRUSTED LANGUAGE second_plpgsql HANDLER second_call INLINE second_inline VALIDATOR second_validator;
COMMENT ON LANGUAGE second_plpgsql IS 'plpgsql by another name';
CREATE TRANSFORM FOR integer LANGUAGE second_plpgsql
    (FROM SQL WITH FUNCTION prsd_lextype(internal), TO SQL WITH FUNCTION int4recv(internal));
\endif

COMMENT ON SCHEMA "naïve schéma" IS E'line one\nline two\t\\ and ''quotes''';
COMMENT ON TYPE mood IS 'an enum';
COMMENT ON DOMAIN positive IS 'a domain';
COMMENT ON CONSTRAINT is_positive ON DOMAIN positive IS 'a domain constraint';
COMMENT ON TYPE "weird composite" IS 'a composite';
COMMENT ON COLUMN "weird composite"."a b" IS 'a column of a composite';
COMMENT ON COLLATION posix_copy IS 'a collation';
COMMENT ON CONVERSION latin_conversion IS 'a conversion';
COMMENT ON TEXT SEARCH CONFIGURATION lesson_search IS 'a text search configuration';
COMMENT ON TEXT SEARCH DICTIONARY simple_no_stop IS 'a text search dictionary';
COMMENT ON OPERATOR ===(point3, point3) IS 'an operator';
COMMENT ON CAST (mood AS integer) IS 'a cast';
