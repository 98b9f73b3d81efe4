# `just` lists these recipes.
default:
    @just --list

# Serve samples at http://localhost:5000
run:
    cargo run

# Serve, and again after each change (needs watchexec); `just dev postgres` starts that database server in a container
dev engine="sqlite":
    #!/bin/sh
    set -eu
    case {{engine}} in
        sqlite) url='sqlite:roster.db?mode=rwc' ;;
        postgres) url=postgres://roster:secret@127.0.0.1/roster server={{engine}} ;;
        mariadb | mysql) url=mysql://roster:secret@127.0.0.1/roster server={{engine}} ;;
    esac
    ${server:+docker compose --file deploy/compose/databases.yaml up --detach --wait $server}
    DATABASE_URL=$url watchexec --restart --watch src --watch templates --watch migrations --watch Cargo.toml cargo run

# Run every test, on every engine that is installed
test:
    cargo test

# Run everything that CI runs
ci:
    .ci/run

# [only original]
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
# [end]

# Build the image, and test it and the files in deploy/
containers:
    tests/containers/bases
    tests/containers/image
    # [only original]
    for what in releases rolling logs compose kubernetes; do tests/containers/$what || exit; done
    # [end]

# [only original]
# Push to a repository whose hook builds and runs the commit
platform:
    tests/platform/push

# Cause faults under load: kills, overload, full disks
faults:
    tests/chaos/faults
# [end]

# Generate openapi.json from the handlers
openapi:
    UPDATE_OPENAPI=1 cargo test --lib the_committed_description

# Install the external tools of tests/conformance: a browser, and programs that check standards
tools:
    .ci/tools

# Write manual pages, and completions for bash, fish and zsh, to target/manual
manual:
    MANUAL=target/manual cargo test --test integration the_manual

# [only original]
# Take new pictures for the README
pictures:
    UPDATE_PICTURES=1 cargo test --test integration the_readme_shows
    docs/pictures/architecture
# [end]

# Format the code, and run the checks that run nothing of the project (needs `just tools`)
lint:
    cargo fmt
    .ci/lint

# [only original]
# Run the shell commands of the documents
docs:
    tests/docs/run

# Follow the guides of docs/guide in a clone
guides *guides:
    tests/guide/run {{guides}}

# Copy the project by bin/new, and check the copies
copies *arguments:
    tests/template {{arguments}}
# [end]

# Fuzz a property of src/fuzzing.rs with cargo-fuzz: `just fuzz cursor 600`
fuzz target seconds="60":
    cargo fuzz run --sanitizer none {{target}} -- -max_total_time={{seconds}}

# One-off admin tasks: `just migrate status`
migrate *arguments:
    cargo run --bin migrate -- {{arguments}}
