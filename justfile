# `just` lists these recipes.
default:
    @just --list

# Serve sample users at http://localhost:5000
run:
    cargo run

# Run every test, on every engine that is installed
test:
    cargo test

# Run everything that CI runs
ci:
    .ci/run

# Replace processes under load, with and without HAProxy and nginx
chaos rounds="1":
    tests/chaos/releases {{rounds}}

# Kill processes and databases while users are created and jobs run
kills:
    tests/chaos/writes
    tests/chaos/jobs

# Measure the service and its peers, and write docs/performance.md
bench *arguments:
    benches/run {{arguments}}

# Kill a node of a database cluster under load
failover:
    tests/chaos/galera
    tests/chaos/patroni

# Build the image, and test it and the files in deploy/
containers:
    tests/containers/bases
    tests/containers/image
    for what in releases rolling logs compose kubernetes; do tests/containers/$what || exit; done

# Push to a repository whose hook builds and runs the commit
platform:
    tests/platform/push

# Cause faults under load: kills, overload, full disks
faults:
    tests/chaos/faults

# Generate openapi.json from the handlers
openapi:
    UPDATE_OPENAPI=1 cargo test --lib the_committed_description

# Install the external tools of tests/conformance: a browser, and programs that check standards
tools:
    .ci/tools

# Take new pictures for the README
pictures:
    UPDATE_PICTURES=1 cargo test --test integration the_readme_shows

# Format and lint
lint:
    cargo fmt
    cargo clippy --all-targets -- -D warnings

# Fuzz a property of src/fuzzing.rs with cargo-fuzz: `just fuzz cursor 600`
fuzz target seconds="60":
    cargo fuzz run --sanitizer none {{target}} -- -max_total_time={{seconds}}

# One-off admin tasks: `just migrate status`
migrate *arguments:
    cargo run --bin migrate -- {{arguments}}
