#!/bin/bash
# Install check_patroni, one of those that the daemon is measured beside, into an environment of its own in .cache/, and
# say loudly when that cannot be done. Always succeeds: without it that ratio is measured without its three checks.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 0

version=2.2.0
target=.cache/peers
seconds=300

give_up() { # reason
    echo
    echo "!!! NOT INSTALLED: check_patroni $version"
    echo "!!! because $1"
    echo "!!! The plugins of python -m benchmarks overhead are measured without it."
    echo
    exit 0
} >&2

if [ -e "$target/complete" ]; then exit 0; fi
echo "installing check_patroni $version..." >&2
rm -rf "$target"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
python3 -m venv "$target" >"$log" 2>&1 || give_up "python3 -m venv failed: $(tail -n 1 "$log")"
if ! timeout "$seconds" "$target/bin/pip" install -q --disable-pip-version-check "check_patroni==$version" \
    </dev/null >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    give_up "pip could not install it (its last words are above)"
fi
touch "$target/complete"
