-- Counts the requests of wrk that failed: those with an unexpected status, and network errors.

local threads = {}

function setup(thread)
    table.insert(threads, thread)
end

function init()
    expected, unexpected = {}, 0
    for status in os.getenv("EXPECT"):gmatch("%d+") do
        expected[tonumber(status)] = true
    end
    wrk.method = os.getenv("METHOD")
    wrk.headers["Connection"] = os.getenv("CONNECTION")
end

function response(status)
    if not expected[status] then
        unexpected = unexpected + 1
    end
end

function done(summary, latency)
    local errors = summary.errors
    local failures = errors.connect + errors.read + errors.write + errors.timeout
    for _, thread in ipairs(threads) do
        failures = failures + thread:get("unexpected")
    end
    local p99 = latency:percentile(99) / 1000
    io.write(string.format("requests %d failures %d p99 %d\n", summary.requests, failures, p99))
end
