#!/bin/bash
# Install the Debian packages given as arguments where that can be done, start none of their services, and say loudly
# what could not be had. Always succeeds: a test that misses its server skips itself and is counted.
set -uo pipefail

missing() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}
give_up() { # reason, packages
    echo
    echo "!!! NOT INSTALLED: ${*:2}"
    echo "!!! because $1"
    echo "!!! The tests that need them are skipped. By hand: apt-get install ${*:2}"
    echo
    exit 0
} >&2

# Debian asks this file whether a package may start its services: 101 means no. What was there comes back at the end,
# and also at the next run, should this one be killed.
policy=/usr/sbin/policy-rc.d
saved=$policy.before-probed
policy_is_ours() { grep -qs 'written by probed' "$policy"; }
restore_policy() {
    if [ -e "$saved" ]; then mv -f "$saved" "$policy"; elif policy_is_ours; then rm -f "$policy"; fi
}

[ $# -gt 0 ] || exit 0
if ! { command -v apt-get && command -v dpkg-query; } >/dev/null; then
    give_up "this machine has no apt-get" "$@"
fi
mapfile -t wanted < <(missing "$@")
if [ ${#wanted[@]} -eq 0 ] && ! policy_is_ours; then exit 0; fi
if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        [ ${#wanted[@]} -gt 0 ] || exit 0
        give_up "this is neither root nor a user with passwordless sudo" "${wanted[@]}"
    fi
    exec sudo -n bash "$0" "$@"
fi

# One at a time, because of policy-rc.d.
exec 9>/run/lock/probed-system-packages || give_up "/run/lock cannot be written" "${wanted[@]}"
flock 9
mapfile -t wanted < <(missing "$@")
log=$(mktemp)
finish() {
    restore_policy
    rm -f "$log"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP
restore_policy
[ ${#wanted[@]} -gt 0 ] || exit 0
if [ -e "$policy" ]; then mv "$policy" "$saved"; fi
if ! printf '#!/bin/sh\n# written by probed: scripts/system-packages.sh\nexit 101\n' >"$policy"; then
    give_up "$policy cannot be written" "${wanted[@]}"
fi
chmod 755 "$policy"

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 \
        -o Acquire::Retries=2 -o Acquire::http::Timeout=30 "$@" </dev/null >>"$log" 2>&1 9>&-
}
before=" $(dpkg-query -W -f '${Package} ' 2>/dev/null)"
echo "installing ${wanted[*]}..." >&2
apt update
# All at once; if one of them cannot be had, each by itself.
apt install --no-install-recommends "${wanted[@]}" ||
    for package in "${wanted[@]}"; do apt install --no-install-recommends "$package"; done

# Nor may they start at the next boot of a developer's machine. What was installed before is left as it was.
for package in $(dpkg-query -W -f '${Package} '); do
    case $before in *" $package "*) continue ;; esac
    for unit in $(dpkg -L "$package" 2>/dev/null | sed -nE 's#.*/lib/systemd/system/([^/@]*\.(service|timer|socket))$#\1#p'); do
        systemctl disable --quiet "$unit" >>"$log" 2>&1 || true
    done
done

mapfile -t wanted < <(missing "$@")
if [ ${#wanted[@]} -gt 0 ]; then
    tail -n 15 "$log" >&2
    give_up "apt-get could not install them (its last words are above)" "${wanted[@]}"
fi
