-- Load for wrk: each request creates another user, with a key of its own.
-- Arguments: the token, and a text that no other run has.

local threads = 0

function setup(thread)
    threads = threads + 1
    thread:set("number", threads)
end

local count, prefix, headers = 0, "", {}

function init(arguments)
    prefix = string.format("%s-%d-", arguments[2], number)
    headers = { ["Authorization"] = "Bearer " .. arguments[1], ["Content-Type"] = "application/json" }
end

function request()
    count = count + 1
    local name = prefix .. count
    headers["Idempotency-Key"] = name
    return wrk.format("POST", "/users", headers,
        string.format('{"username":"%s","email":"%s@example.com"}', name, name))
end

function done(summary, latency)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format(
        '\n{"requests": %d, "failed": %d, "seconds": %f, "p50_us": %d, "p99_us": %d}\n',
        summary.requests, failed, summary.duration / 1e6, latency:percentile(50), latency:percentile(99)
    ))
end
