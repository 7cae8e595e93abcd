#!/usr/bin/env bash
# Installs the clients of tests/clients into target/clients: pinned versions; does nothing when they are there.
# Needs Python 3 with venv, Node.js with npm, and redis-cli (installed by apt where that is possible).
set -euo pipefail
cd "$(dirname "$0")/../.."
home=target/clients
mkdir -p "$home"

apt_install() {
    if ! command -v "$1" >/dev/null; then
        echo "installing $2"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${@:2}" >/dev/null
    fi
}
apt_install redis-cli redis-tools
apt_install python3 python3 python3-venv
apt_install npm nodejs npm

if ! cmp -s tests/clients/python/requirements.txt "$home/python/requirements.txt"; then
    rm -rf "$home/python"
    python3 -m venv "$home/python" || { apt-get install -y -qq python3-venv >/dev/null; python3 -m venv "$home/python"; }
    "$home/python/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/python/requirements.txt
    cp tests/clients/python/requirements.txt "$home/python/"
fi

if ! cmp -s tests/clients/node/package-lock.json "$home/node/package-lock.json"; then
    rm -rf "$home/node"
    mkdir -p "$home/node"
    cp tests/clients/node/package.json tests/clients/node/package-lock.json "$home/node/"
    (cd "$home/node" && npm ci --no-audit --no-fund --loglevel=error)
fi
