# What every script here begins with: where it stands, and how podman runs without systemd and a registry.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export CONTAINERS_CONF=$PWD/tests/containers/containers.conf
# The format of images that keeps a HEALTHCHECK.
export BUILDAH_FORMAT=docker
# podman leaves it to systemd to ask for a container's health, and complains where there is none.
export DISABLE_HC_SYSTEMD=true

# The build image: what `tests/containers/image` makes of the Dockerfile.
IMAGE=localhost/roster:$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
# How a container runs in production: nothing to write to, no right, no way to get one.
HARDENED=(
    --read-only --read-only-tmpfs=false --cap-drop ALL --security-opt no-new-privileges --pids-limit 200 --memory 256m
)

step() { printf '\n-- %s\n' "$*"; }
fail() {
    echo "$*" >&2
    exit 1
}
# eventually COMMAND…: waits until it succeeds, half a minute at most.
eventually() {
    for _ in $(seq 300); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    fail "not within 30 s: $*"
}
