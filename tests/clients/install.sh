#!/usr/bin/env bash
# Installs the clients of tests/clients, and what examples/ needs, into target/clients: pinned versions; does nothing when they are there.
# Needs Python 3 with venv, Node.js with npm, and redis-cli (installed by apt where that is possible).
set -euo pipefail
cd "$(dirname "$0")/../.."
home=target/clients
mkdir -p "$home"

# A download that fails is tried again.
try() {
    for attempt in 1 2 3; do
        "$@" && return
        echo "attempt $attempt of 3 failed: $*" >&2
        sleep $((5 * attempt))
    done
    echo "cannot install the clients: is the package registry (pip, npm) reachable?" >&2
    return 1
}

apt_install() {
    if ! command -v "$1" >/dev/null; then
        if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
            echo "needs $1; on Debian, as root: apt-get install ${*:2}" >&2
            exit 1
        fi
        echo "installing $2"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${@:2}" >/dev/null
    fi
}
apt_install redis-cli redis-tools
apt_install python3 python3 python3-venv
apt_install npm nodejs npm

# Keeps a copy of the requested versions beside the installation.
wanted=$(cat tests/clients/python/requirements.txt examples/python/requirements.txt)
if [ "$wanted" != "$(cat "$home/python/requirements.txt" 2>/dev/null)" ]; then
    rm -rf "$home/python"
    python3 -m venv "$home/python" || { apt-get install -y -qq python3-venv >/dev/null; python3 -m venv "$home/python"; }
    try "$home/python/bin/pip" install --quiet --disable-pip-version-check \
        -r tests/clients/python/requirements.txt -r examples/python/requirements.txt
    echo "$wanted" >"$home/python/requirements.txt"
fi

# FROM TO: the packages of a folder.
npm_install() {
    if ! cmp -s "$1/package-lock.json" "$home/$2/package-lock.json"; then
        rm -rf "${home:?}/$2"
        mkdir -p "$home/$2"
        cp "$1/package.json" "$1/package-lock.json" "$home/$2/"
        (cd "$home/$2" && try npm ci --no-audit --no-fund --loglevel=error)
    fi
}
npm_install tests/clients/node node
npm_install examples/node examples
