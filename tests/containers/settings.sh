# The beginning of every script in this folder: the working directory, the container engine, and settings of podman for
# machines without systemd and a registry. CONTAINER_ENGINE is podman, or docker with the daemon of
# tests/containers/docker.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

ENGINE=${CONTAINER_ENGINE:-podman}
export CONTAINERS_CONF=$PWD/tests/containers/containers.conf
# The image format that supports HEALTHCHECK.
export BUILDAH_FORMAT=docker
# podman checks the health of containers by systemd, and fails without it.
export DISABLE_HC_SYSTEMD=true

# The image that tests/containers/image builds.
IMAGE=localhost/roster:$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
[ "$ENGINE" = podman ] || IMAGE=${IMAGE#localhost/}
# The restrictions of a container in production: a read-only file system, no capabilities, no way to gain privileges.
HARDENED=(--read-only --cap-drop ALL --security-opt no-new-privileges --pids-limit 200 --memory 256m)
[ "$ENGINE" = docker ] || HARDENED+=(--read-only-tmpfs=false)

step() { printf '\n-- %s\n' "$*"; }
fail() {
    echo "$*" >&2
    exit 1
}
# has_image IMAGE
has_image() { "$ENGINE" image inspect "$1" >/dev/null 2>&1; }
# healthy CONTAINER: whether its health check succeeds. Docker runs it periodically; podman needs systemd for that.
healthy() {
    if [ "$ENGINE" = podman ]; then
        podman healthcheck run "$1" >/dev/null
    else
        [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]
    fi
}
# make_volume NAME: creates a volume that the user of the image may write to.
make_volume() {
    "$ENGINE" volume create "$1" >/dev/null
    "$ENGINE" run --rm --volume "$1:/data" docker.io/library/debian:bookworm-slim chown 10001:10001 /data
}
# eventually COMMAND…: waits until the command succeeds, at most 30 s.
eventually() {
    for _ in $(seq 300); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    fail "not within 30 s: $*"
}
