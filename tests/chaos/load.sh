# Clients without pauses or retries, which count every outcome. Needs wrk, and a folder $scratch.

# load PORT [METHOD STATUS CONNECTION [CLIENTS]]: starts the load in the background. Any other status is a failure.
load() {
    METHOD=${2:-GET} EXPECT=${3:-200} CONNECTION=${4:-keep-alive} wrk --threads 1 --connections "${5:-32}" \
        --timeout 20s --duration 600s --script tests/chaos/count.lua "http://127.0.0.1:$1/users?limit=1" \
        >"$scratch/load" &
    loader=$!
    sleep 1
}

# report NAME [FAILURES]: ends the load and prints its figures. Fails if over FAILURES (0) requests failed.
report() {
    sleep 1
    kill -INT "$loader"
    wait "$loader" || true
    read -r _ requests _ failures _ p99 < <(grep '^requests' "$scratch/load")
    printf '%-34s %9d requests %5d failures %5d ms at the 99th percentile\n' "$1" "$requests" "$failures" "$p99"
    # Fewer requests would prove nothing.
    [ "$requests" -gt 1000 ] && [ "$failures" -le "${2:-0}" ]
}
