#!/usr/bin/env bash
# The backup plan's own command line (2.2): DIR is a repository folder.
#   DRY_RUN=true DATABASE_URL=postgresql://… ./scripts/backup/comprehensive-restore.sh DIR
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: ${0##*/} DIR [options of pgkura restore]" >&2; exit 2; }
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)
pgkura=$here/.venv/bin/pgkura
[ -x "$pgkura" ] || pgkura=pgkura
dir=$1
shift
exec "$pgkura" restore --repository "$dir" "$@"
