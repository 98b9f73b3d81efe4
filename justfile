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

# Format and lint
lint:
    cargo fmt
    cargo clippy --all-targets -- -D warnings

# One-off admin tasks: `just migrate status`
migrate *arguments:
    cargo run --bin migrate -- {{arguments}}
