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

# object ID SHA256: decrypts an object into $work/object, once.
opened=
open_object() {
  [ "$opened" = "$1" ] && return 0
  local file=data/${1:0:2}/$1
  echo "$2  $file" | sha256sum --check --status || { echo "error: $file is damaged or missing" >&2; exit 1; }
  age -d -i "$work/epoch.key" -o "$work/object" "$file"
  opened=$1
}
# chunk OFFSET STORED LENGTH FILE: the plain bytes of one zstd frame of the open object.
chunk() {
  # head stops reading before tail has said all, which is no failure: only the last command of the pipe counts.
  (set +o pipefail; tail -c "+$(($1 + 1))" "$work/object" | head -c "$2" | zstd -dcq) > "$4"
  [ "$(wc -c < "$4")" -eq "$3" ] || { echo "error: a part of object $opened has the wrong length" >&2; exit 1; }
}
# component NAME FILE: writes a component, empty if the snapshot has none.
component() {
  : > "$2"
  while IFS=$'\t' read -r word name id _ sha offset stored length _; do
    if [ "$word" = component ] && [ "$name" = "$1" ]; then
      open_object "$id" "$sha"
      chunk "$offset" "$stored" "$length" "$2"
    fi
  done < <(tail -n +2 "$work/manifest")
}

component archive "$work/archive"
component before.sql "$work/before.sql"
component after.sql "$work/after.sql"
component chunks "$work/chunks"
# One psql for all: no ~/.psqlrc, stop at the first error; a definer's search_path never helps a stranger.
sql() { psql -X -q -v ON_ERROR_STOP=1 -d "$url" "$@" >/dev/null; }
settings="SET search_path = ''; SET row_security = off; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; \
SET TimeZone = 'UTC'; SET client_encoding = 'UTF8'; SET bytea_output = 'hex'; SET xmloption = 'content'; \
SET standard_conforming_strings = on; SET statement_timeout = 0; SET default_transaction_read_only = off;"

echo "1/5 roles"
sql -f "$work/before.sql" || failed=1
echo "2/5 definitions"
pg_restore --section=pre-data --no-password -d "$url" "$work/archive" || failed=1

echo "3/5 rows"
declare -A shas tables=()
sql -c "CREATE SCHEMA pgkura_restore" -c "CREATE TABLE pgkura_restore.blobs (oid oid, start bigint, data bytea)"
columns='' target='' rows=0
while IFS=$'\t' read -r word a b c d e f g; do
  case $word in
    object) shas[$a]=$c ;;
    table) target=$d columns=$c; [ "$columns" = - ] && columns=''
           [ "$a" = -1 ] && { target=pgkura_restore.blobs columns=''; } ;;
    chunk) open_object "$b" "${shas[$b]}"
           chunk "$c" "$d" "$e" "$work/rows"
           # not \\copy, which does not know U&"" names
           sql -c "$settings" -c "COPY $target $columns FROM STDIN" < "$work/rows" || { failed=1; echo "error: rows of $target" >&2; }
           rows=$((rows + f)) ;;
  esac
done < "$work/chunks"

echo "4/5 sequences, large objects, indexes, constraints, privileges"
sql -c "SELECT pg_catalog.lo_create(o) FROM (SELECT DISTINCT oid AS o FROM pgkura_restore.blobs) x" \
    -c "SELECT pg_catalog.lo_put(oid, start, data) FROM pgkura_restore.blobs" -c "DROP SCHEMA pgkura_restore CASCADE"
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
echo "5/5 statistics"
# statistics alone: a type whose own analysis fails costs no data
sql -c "ANALYZE" || echo "warning: not all statistics were made; see above, and run ANALYZE for the other tables" >&2

if [ "$failed" = 0 ]; then
  echo "done: $rows rows of snapshot $snapshot"
else
  echo "INCOMPLETE: $rows rows of snapshot $snapshot; look at the errors above" >&2
  exit 3
fi
