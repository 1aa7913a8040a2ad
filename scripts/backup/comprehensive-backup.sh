#!/usr/bin/env bash
# The backup plan's own command line (2.1): everything in one complete, sealed backup.
#   DATABASE_URL=postgresql://… PGKURA_REPOSITORY=… ./scripts/backup/comprehensive-backup.sh
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)
pgkura=$here/.venv/bin/pgkura
[ -x "$pgkura" ] || pgkura=pgkura
exec "$pgkura" backup "$@"
