# What every script here begins with: where it stands, which engine runs the containers, and how podman runs without
# systemd and a registry. CONTAINER_ENGINE is podman, or docker with the daemon that tests/containers/docker starts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

ENGINE=${CONTAINER_ENGINE:-podman}
export CONTAINERS_CONF=$PWD/tests/containers/containers.conf
# The format of images that keeps a HEALTHCHECK.
export BUILDAH_FORMAT=docker
# podman leaves it to systemd to ask for a container's health, and complains where there is none.
export DISABLE_HC_SYSTEMD=true

# The build image: what `tests/containers/image` makes of the Dockerfile.
IMAGE=localhost/roster:$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
[ "$ENGINE" = podman ] || IMAGE=${IMAGE#localhost/}
# How a container runs in production: nothing to write to, no right, no way to get one.
HARDENED=(--read-only --cap-drop ALL --security-opt no-new-privileges --pids-limit 200 --memory 256m)
[ "$ENGINE" = docker ] || HARDENED+=(--read-only-tmpfs=false)

step() { printf '\n-- %s\n' "$*"; }
fail() {
    echo "$*" >&2
    exit 1
}
# has_image IMAGE
has_image() { "$ENGINE" image inspect "$1" >/dev/null 2>&1; }
# healthy CONTAINER: its health check succeeds. Docker runs it by itself; podman leaves that to systemd.
healthy() {
    if [ "$ENGINE" = podman ]; then
        podman healthcheck run "$1" >/dev/null
    else
        [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]
    fi
}
# make_volume NAME: a volume that the image's user may write to.
make_volume() {
    "$ENGINE" volume create "$1" >/dev/null
    "$ENGINE" run --rm --volume "$1:/data" docker.io/library/debian:bookworm-slim chown 10001:10001 /data
}
# eventually COMMAND…: waits until it succeeds, half a minute at most.
eventually() {
    for _ in $(seq 300); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    fail "not within 30 s: $*"
}
