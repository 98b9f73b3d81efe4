# `just` lists these.
default:
    @just --list

# Serve sample users at http://localhost:5000
run:
    cargo run

# Every test, on every engine that is installed
test:
    cargo test

# What CI runs
ci:
    .ci/run

# Roll releases under load, behind HAProxy and nginx and without them
chaos rounds="1":
    tests/chaos/releases {{rounds}}

# Measure the service beside its peers, and write docs/performance.md
bench *arguments:
    benches/run {{arguments}}

# Kill a node of a cluster of databases under load
failover:
    tests/chaos/galera
    tests/chaos/patroni

# Build the image, and hold it and all that is deployed of it to their promises
containers:
    tests/containers/bases
    tests/containers/image
    for what in releases rolling logs compose kubernetes; do tests/containers/$what || exit; done

# Push to a platform that builds and runs what it receives
platform:
    tests/platform/push

# Kill, crowd and starve a process under load
faults:
    tests/chaos/faults

# Write openapi.json anew from the handlers
openapi:
    UPDATE_OPENAPI=1 cargo test --lib the_committed_description

# What the tests can be judged by besides: a browser, and programs that know the standards
tools:
    .ci/tools

# Take the README's pictures anew
pictures:
    UPDATE_PICTURES=1 cargo test --test factors the_readme_shows

# Format and lint
lint:
    cargo fmt
    cargo clippy --all-targets -- -D warnings

# Look for inputs that break a property of src/fuzzing.rs, with cargo-fuzz: `just fuzz cursor 600`
fuzz target seconds="60":
    cargo fuzz run --sanitizer none {{target}} -- -max_total_time={{seconds}}

# One-off admin tasks: `just migrate status`
migrate *arguments:
    cargo run --bin migrate -- {{arguments}}
