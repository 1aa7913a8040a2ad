#!/usr/bin/env bash
# Gets a snapshot out of this repository with stock tools only: bash, coreutils, age, zstd, psql, pg_restore.
#
#   ./restore.sh IDENTITY_FILE TARGET_URL [SNAPSHOT]
#
# Run it inside a copy of the repository folder. TARGET_URL is a new, empty database. It checks the hash of every file it
# opens; it does not check signatures (pgkura does), so use a copy that you trust. See RESTORE.md.
set -euo pipefail
export LC_ALL=C
[ $# -ge 2 ] || { echo "usage: $0 IDENTITY_FILE TARGET_URL [SNAPSHOT]" >&2; exit 2; }
identity=$1 url=$2
cd "$(dirname "${BASH_SOURCE[0]}")"
for tool in age zstd psql pg_restore sha256sum; do
  command -v "$tool" >/dev/null || { echo "error: $tool is not installed" >&2; exit 1; }
done
[ -r pgkura-repository ] || { echo "error: this is not a repository folder" >&2; exit 1; }
snapshot=${3:-$(ls snapshots | sort | tail -n 1)}
[ -r "snapshots/$snapshot" ] || { echo "error: no snapshot '$snapshot'" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 700 "$work"
failed=0

# The keys of all data, one per epoch, sealed to the identities of people; age tries all that are in one file.
for file in keys/epoch-[0-9]*; do
  tail -n +2 "$file" | age -d -i "$identity" >> "$work/epoch.key" || echo "warning: $file does not open" >&2
done
[ -s "$work/epoch.key" ] || { echo "error: this identity opens no epoch of this repository" >&2; exit 1; }
# The manifest: one line of JSON, then a line per component.
tail -n +2 "snapshots/$snapshot" | age -d -i "$work/epoch.key" | zstd -dcq > "$work/manifest"

# object ID SHA256: decrypts an object into $work/object-ID; the last few are kept.
opened=() object=
open_object() {
  object=$work/object-$1
  [ -e "$object" ] && return 0
  local file=data/${1:0:2}/$1
  echo "$2  $file" | sha256sum --check --status || { echo "error: $file is damaged or missing" >&2; exit 1; }
  age -d -i "$work/epoch.key" -o "$object" "$file"
  opened+=("$object")
  [ ${#opened[@]} -le 50 ] || { rm -f "${opened[0]}"; opened=("${opened[@]:1}"); }
}
# chunk OFFSET STORED LENGTH FILE: the plain bytes of one zstd frame of the open object.
chunk() {
  # head stops reading before tail has said all, which is no failure: only the last command of the pipe counts.
  (set +o pipefail; tail -c "+$(($1 + 1))" "$object" | head -c "$2" | zstd -dcq) > "$4"
  [ "$(wc -c < "$4")" -eq "$3" ] || { echo "error: a part of ${object##*/} has the wrong length" >&2; exit 1; }
}
# component NAME FILE: writes a component, empty if the snapshot has none; a long one has several lines, marked +.
component() {
  : > "$2"
  while IFS=$'\t' read -r word name id rest; do
    if [ "$word" = component ] && [ "$name" = "$1" ]; then
      [ "$id" != + ] || IFS=$'\t' read -r id rest <<< "$rest"
      IFS=$'\t' read -r _ sha offset stored length _ <<< "$rest"
      open_object "$id" "$sha"
      chunk "$offset" "$stored" "$length" "$work/part"
      cat "$work/part" >> "$2"
    fi
  done < <(tail -n +2 "$work/manifest")
}

component archive "$work/archive"
pg_restore --list "$work/archive" >/dev/null || {
  echo "error: $(pg_restore --version) cannot read what this snapshot's newer pg_dump wrote: nothing was changed." >&2
  echo "Install the PostgreSQL client programs of the database's version, or newer ones, and put them first in PATH." >&2
  exit 1
}
component before.sql "$work/before.sql"
component after.sql "$work/after.sql"
component chunks "$work/chunks"
component hosted-before.sql "$work/hosted-before.sql"
component hosted-rows "$work/hosted-rows"
component hosted-after.sql "$work/hosted-after.sql"
# One psql for all: no ~/.psqlrc, stop at the first error; a definer's search_path never helps a stranger.
sql() { psql -X -q -v ON_ERROR_STOP=1 -d "$url" "$@" >/dev/null; }
settings="SET search_path = ''; SET row_security = off; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; \
SET TimeZone = 'UTC'; SET client_encoding = 'UTF8'; SET bytea_output = 'hex'; SET xmloption = 'content'; \
SET standard_conforming_strings = on; SET statement_timeout = 0; SET default_transaction_read_only = off;"

# A hosted project whose platform has made its own part already takes only the user's, shut until the end.
declare -A way=()
hosted=
if [ -s "$work/hosted-after.sql" ]; then
  hosted=$(psql -X -q -A -t -d "$url" -c "SELECT 'yes' FROM pg_catalog.pg_roles WHERE rolname = 'supabase_admin' AND \
rolcanlogin AND 2 = (SELECT pg_catalog.count(*) FROM pg_catalog.pg_namespace WHERE nspname IN ('auth', 'storage'))")
fi
if [ -n "$hosted" ]; then
  echo "(into a hosted project)"
  while IFS=$'\t' read -r word number; do way[$number]=$word; done < <(tail -n +2 "$work/hosted-rows")
fi
# rows_of NUMBER: whether a table's rows are loaded, and under which settings.
plain_settings=$settings
rows_of() {
  settings=$plain_settings
  [ "${way[$1]:-}" = managed ] && settings="$settings SET session_replication_role = replica;"
  [ "${way[$1]:-}" != skip ]
}

if [ -n "$hosted" ]; then
  echo "1/5 roles"
  echo "2/5 definitions"
  sql -f "$work/hosted-before.sql" || failed=1
else
  echo "1/5 roles"
  sql -f "$work/before.sql" || failed=1
  echo "2/5 definitions"
  pg_restore --section=pre-data --no-password -d "$url" "$work/archive" || failed=1
fi

echo "3/5 rows"
declare -A shas=()
sql -c "CREATE SCHEMA pgkura_restore" -c "CREATE TABLE pgkura_restore.blobs (oid oid, start bigint, data bytea)"
columns='' target='' number='' rows=0 dropped=0 form=text
# A chunk of binary rows as a file that COPY reads: header, rows, trailer.
binary_file() { printf 'PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0'; cat "$work/rows"; printf '\377\377'; }
# Rows that do not count any more are taken out by their number: of text here, of binary rows by the server.
load_text() {
  if [ "$dropped" -gt 0 ]; then
    printf '%012d\n' $(< "$work/numbers") > "$work/drops"
    nl -b a -n rz -w 12 -s $'\t' "$work/rows" | join -v 1 -t $'\t' - "$work/drops" | cut -f 2- > "$work/kept"
    mv "$work/kept" "$work/rows"
  fi
  # not \\copy, which does not know U&"" names
  sql -c "$settings" -c "COPY $target $columns FROM STDIN" < "$work/rows"
}
load_binary() {
  if [ "$dropped" = 0 ]; then
    binary_file | sql -c "$settings" -c "COPY $target $columns FROM STDIN WITH (FORMAT binary)"
    return
  fi
  # No constraint of the table's of now: dropped rows may be older than it, and a generated column stays empty here.
  sql -c "CREATE TABLE pgkura_restore.staged AS SELECT ${columns:1:${#columns}-2} FROM $target WITH NO DATA" \
      -c 'ALTER TABLE pgkura_restore.staged ADD "pgkura line" bigserial' -c "CREATE TABLE pgkura_restore.drops (n bigint)" &&
  sql -c "COPY pgkura_restore.drops FROM STDIN" < "$work/numbers" &&
  binary_file | sql -c "$settings" -c "COPY pgkura_restore.staged $columns FROM STDIN WITH (FORMAT binary)" &&
  sql -c "INSERT INTO $target $columns OVERRIDING SYSTEM VALUE SELECT ${columns:1:${#columns}-2} FROM pgkura_restore.staged s
          WHERE NOT EXISTS (SELECT FROM pgkura_restore.drops d WHERE d.n = s.\"pgkura line\") ORDER BY \"pgkura line\"" \
      -c "DROP TABLE pgkura_restore.staged, pgkura_restore.drops"
}
while IFS=$'\t' read -r word a b c d e f g; do
  case $word in
    object) shas[$a]=$c ;;
    table) number=$a target=$d columns=$c form=${g:-text}; [ "$columns" = - ] && columns=''
           [ "$a" = -1 ] && { target=pgkura_restore.blobs columns=''; } ;;
    drops) open_object "$b" "${shas[$b]}"
           chunk "$c" "$d" "$e" "$work/numbers"
           dropped=$a ;;
    chunk) rows_of "$number" || { dropped=0; continue; }
           open_object "$b" "${shas[$b]}"
           chunk "$c" "$d" "$e" "$work/rows"
           "load_$form" || { failed=1; echo "error: rows of $target" >&2; }
           rows=$((rows + f - dropped)) dropped=0 ;;
  esac
done < "$work/chunks"

echo "4/5 sequences, large objects, indexes, constraints, privileges"
sql -c "SELECT pg_catalog.lo_create(o) FROM (SELECT DISTINCT oid AS o FROM pgkura_restore.blobs) x" \
    -c "SELECT pg_catalog.lo_put(oid, start, data) FROM pgkura_restore.blobs" \
    -c "SET client_min_messages = warning" -c "DROP SCHEMA pgkura_restore CASCADE"
finish_plain() {
  # Event triggers come last of all, or they would fire for what this script itself does.
  : > "$work/main.list"; : > "$work/last.list"
  while read -r number one two rest; do
    case $rest in
      'EVENT TRIGGER '* | 'COMMENT - EVENT TRIGGER '* | 'SECURITY LABEL - EVENT TRIGGER '*) list=last ;;
      *) list=main ;;
    esac
    echo "$number $one $two $rest" >> "$work/$list.list"
  done < <(pg_restore --list --section=post-data "$work/archive")
  pg_restore --use-list="$work/main.list" --section=post-data --no-password -d "$url" "$work/archive" || failed=1
  sql -f "$work/after.sql" || failed=1
  pg_restore --use-list="$work/last.list" --section=post-data --no-password -d "$url" "$work/archive" || failed=1
}
if [ -n "$hosted" ]; then sql -f "$work/hosted-after.sql" || failed=1; else finish_plain; fi
echo "5/5 statistics"
# statistics alone: a type whose own analysis fails costs no data
sql -c "SET client_min_messages = error" -c "ANALYZE" ||
  echo "warning: not all statistics were made; see above, and run ANALYZE for the other tables" >&2

if [ "$failed" = 0 ]; then
  echo "done: $rows rows of snapshot $snapshot"
else
  echo "INCOMPLETE: $rows rows of snapshot $snapshot; look at the errors above" >&2
  exit 3
fi
