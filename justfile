# Thin: each recipe is one line that a person could type.

# What there is
default:
    @just --list

# Run the hub on ./ballast-data
serve *ARGS:
    cargo run --release -- serve {{ARGS}}

# Format, lint and test, as CI does
check: fmt lint test

fmt:
    cargo fmt --all --check

lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

test:
    cargo test --workspace --locked

docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Licences, bans and sources of what we depend on
deny:
    cargo deny check bans licenses sources

# What moving a GiB costs next to other servers; benches/transfer.py says what it needs
bench *ARGS:
    target/bench/bin/python benches/transfer.py {{ARGS}}

# A minute for each parser of foreign bytes; needs a nightly compiler and cargo-fuzz
fuzz TARGET SECONDS="60":
    cargo +nightly fuzz run {{TARGET}} -- -max_total_time={{SECONDS}}
