# Clients without pause, who count every outcome; for the scripts here that replace containers beneath them.

# load PORT: in the background.
load() {
    EXPECT=200 METHOD=GET CONNECTION=keep-alive wrk --threads 1 --connections 32 --timeout 20s --duration 600s \
        --script tests/chaos/count.lua "http://127.0.0.1:$1/users?limit=1" >"$scratch/load" &
    loader=$!
    sleep 1
}
# report NAME: ends the load, and tells what became of it. A failure is a defect.
report() {
    sleep 1
    kill -INT "$loader"
    wait "$loader" || true
    read -r _ requests _ failures < <(grep '^requests' "$scratch/load")
    printf '%-34s %9d requests %5d failures\n' "$1" "$requests" "$failures"
    [ "$requests" -gt 1000 ] || fail "$1: too few requests to tell"
    [ "$failures" = 0 ] || fail "$1: requests failed"
}
