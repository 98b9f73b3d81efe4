-- Load for wrk: pages that begin at random ids. The requests are built before the measurement starts.
-- Arguments: the path, the format of an id ("cursor" or "number"), the lowest id and the highest id.

local threads = 0

function setup(thread)
    threads = threads + 1
    thread:set("seed", threads)
end

local digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

-- base64url encodes three bytes as four digits.
local function base64url(bytes)
    return (bytes:gsub("...", function(three)
        local a, b, c = three:byte(1, 3)
        local number = a * 65536 + b * 256 + c
        local four = ""
        for place = 3, 0, -1 do
            local digit = math.floor(number / 64 ^ place) % 64
            four = four .. digits:sub(digit + 1, digit + 1)
        end
        return four
    end))
end

-- The service's cursor: the letter of the column, and the key in eight bytes.
local function cursor(id)
    local key = ""
    for place = 7, 0, -1 do
        key = key .. string.char(math.floor(id / 256 ^ place) % 256)
    end
    return base64url("i" .. key)
end

local requests = {}

function init(arguments)
    local path, kind, lowest, highest = unpack(arguments)
    math.randomseed(seed)
    for number = 1, path:find("?", 1, true) and 10000 or 1 do
        local id = math.random(tonumber(lowest), tonumber(highest))
        local after = kind == "cursor" and cursor(id) or string.format("%d", id)
        requests[number] = wrk.format("GET", (path:gsub("AFTER", after)))
    end
end

function request()
    return requests[math.random(#requests)]
end

function done(summary, latency)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format(
        '\n{"requests": %d, "failed": %d, "seconds": %f, "p50_us": %d, "p99_us": %d}\n',
        summary.requests, failed, summary.duration / 1e6, latency:percentile(50), latency:percentile(99)
    ))
end
