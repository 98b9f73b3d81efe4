# Shared by `releases` and `faults`: a database, processes and clients.

scratch=$(mktemp -d)
trap 'trap - EXIT; kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$scratch"' EXIT
export DATABASE_URL="sqlite:$scratch/roster.db?mode=rwc" HOST=127.0.0.1 RUST_LOG=warn
target/programs/migrate up >/dev/null
target/programs/migrate seed 50000 >/dev/null

# start NAME VARIABLE=value…: starts a process and waits until it is ready. ${pid[NAME]} is its process id.
declare -A pid
start() {
    local name=$1 port=
    shift
    for variable in "$@"; do case $variable in PORT=*) port=${variable#PORT=} ;; esac; done
    env "$@" target/programs/web >>"$scratch/log" 2>&1 &
    pid[$name]=$!
    for _ in $(seq 200); do
        # On a shared port, the other process may respond. The new one has its threads when it listens.
        grep -Eq '^Threads:\s+([3-9]|[1-9][0-9])' "/proc/${pid[$name]}/status" 2>/dev/null &&
            curl --fail --silent --output /dev/null "localhost:${port:-$ACTIVATED_PORT}/readyz" && return
        sleep 0.05
    done
    echo "$name does not become ready:" >&2
    cat "$scratch/log" >&2
    exit 1
}

# stream NAME PORT: starts a slow client of a process. Its stream must be complete when the process has stopped.
declare -A reader
stream() {
    curl --fail --silent --limit-rate 600k --output /dev/null "localhost:$2/users.csv" &
    reader[$1]=$!
}

# stop NAME: stops a process by SIGTERM. It must exit with 0.
stop() {
    kill "${pid[$1]}"
    wait "${pid[$1]}"
    if [ -n "${reader[$1]:-}" ]; then
        wait "${reader[$1]}" || { echo "the stream of $1 is incomplete" >&2; failed=1; }
        reader[$1]=
    fi
}

failed=0
. tests/chaos/load.sh
