#!/bin/bash
# Install postgres-meta, which the demo and some tests run for real, into .cache/ where node and npm are there, and say
# loudly when that cannot be done. Always succeeds: without it the demo has a stand-in, and the tests concerned skip.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 0

package='@supabase/postgres-meta'
version=0.99.0
node_major=20 # its package.json: engines
target=.cache/postgres-meta
seconds=300

give_up() { # reason
    echo
    echo "!!! NOT INSTALLED: postgres-meta $version"
    echo "!!! because $1"
    echo "!!! The demo shows a stand-in for it, and the tests that need it are skipped."
    echo
    exit 0
} >&2

installed() { # directory
    grep -qs "\"version\": *\"$version\"" "$1/node_modules/$package/package.json" && [ -e "$1/complete" ]
}

if installed "$target"; then exit 0; fi
if ! { command -v node && command -v npm; } >/dev/null; then
    give_up "this machine has no node or no npm (Debian and Ubuntu: apt-get install nodejs npm)"
fi
major=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null)
if [ "${major:-0}" -lt "$node_major" ]; then
    give_up "it needs node $node_major or newer, and this is $(node --version 2>/dev/null)"
fi

mkdir -p .cache || give_up ".cache cannot be made"
# One at a time; who waited finds it done.
exec 9>.cache/postgres-meta.lock || give_up ".cache cannot be written"
flock 9
if installed "$target"; then exit 0; fi

new=$target.new
log=$(mktemp)
trap 'rm -rf "$new" "$log"' EXIT
rm -rf "$new"
mkdir -p "$new" || give_up "$new cannot be made"
echo "installing postgres-meta $version, about half a minute..." >&2
# No lock file, which would name registries; and nothing that a package would like to run while it is installed.
if ! timeout "$seconds" npm install --prefix "$new" --no-save --no-package-lock --ignore-scripts --omit=dev \
    --no-audit --no-fund --no-update-notifier --loglevel=error "$package@$version" </dev/null >"$log" 2>&1 9>&-; then
    tail -n 15 "$log" >&2
    give_up "npm could not install it (its last words are above)"
fi
touch "$new/complete"
rm -rf "$target"
mv "$new" "$target" || give_up "$target cannot be replaced"
