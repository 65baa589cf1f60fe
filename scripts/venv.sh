#!/bin/bash
# Make .venv hold exactly what the locks given as arguments pin, and this project, editable.
# A lock whose content changed means a new environment; a changed pyproject.toml only installs the project anew.
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

# Of the Pythons >= 3.11 with venv, the first one. PostgreSQL refuses to run as root, so under root the demo and the tests
# run it as an ordinary user, who must be able to reach the interpreter too: one below /root is the last choice.
suits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}
reachable_by_all() {
    local real
    real=$("$1" -c 'import os, sys; print(os.path.realpath(sys.executable))')
    [ "$(id -u)" != 0 ] || setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$real" 2>/dev/null
}
choose_python() {
    local second="" candidate
    for candidate in ${PYTHON:-python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11}; do
        suits "$candidate" || continue
        if reachable_by_all "$candidate"; then
            echo "$candidate"
            return
        fi
        second=${second:-$candidate}
    done
    echo "$second"
}

wanted=$(cat "$@" | sha256sum)
if [ "$(cat .venv/locks.sha256 2>/dev/null)" != "$wanted" ] || ! .venv/bin/python -c '' 2>/dev/null; then
    python=$(choose_python)
    if [ -z "$python" ]; then
        echo "probed needs a Python >= 3.11 with venv (Debian and Ubuntu: apt-get install python3-venv)" >&2
        exit 1
    fi
    echo "setting up .venv with $("$python" --version), about half a minute..." >&2
    "$python" -m venv --clear .venv
    # First what builds, then the rest without build isolation: every build uses pinned tools and fetches nothing.
    for lock in "$@"; do
        .venv/bin/pip install -qq --require-hashes --no-build-isolation --use-pep517 -r "$lock"
    done
    echo "$wanted" >.venv/locks.sha256
fi
.venv/bin/pip install -qq --no-deps --no-build-isolation --no-index --editable .
touch .venv/ready
