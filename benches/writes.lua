-- Load for wrk: each request creates another user, with a key of its own.
-- Arguments: the token, and a text that no other run has.

-- Its `setup` numbers the threads by `seed`, and its `done` prints the outcome.
dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "load.lua")

local count, prefix, headers = 0, "", {}

function init(arguments)
    prefix = string.format("%s-%d-", arguments[2], seed)
    headers = { ["Authorization"] = "Bearer " .. arguments[1], ["Content-Type"] = "application/json" }
end

function request()
    count = count + 1
    local name = prefix .. count
    headers["Idempotency-Key"] = name
    return wrk.format("POST", "/users", headers,
        string.format('{"username":"%s","email":"%s@example.com"}', name, name))
end
