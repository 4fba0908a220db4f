# The README's commands. Each does all the set-up it needs on a fresh Debian 12 machine with Rust.
.PHONY: up test setup bench

# Missing Debian packages are installed; nothing is done where all are there.
setup:
	@scripts/setup

# Builds and runs everything on this machine; what stands behind FLAGS= goes to `tenantsdb up`.
up: setup
	cargo build --release -p server
	exec target/release/tenantsdb up $(FLAGS)

# Every check and every test. The end-to-end tests run the binary that is built before them.
test: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@scripts/drivers
	cargo build -p server
	cargo test --workspace --no-fail-fast
	scripts/fuzz

# The comparisons with other proxies, and what the API costs; write BENCHMARKS.md, BENCHMARKS-REDIS.md and BENCHMARKS-API.md.
bench:
	@scripts/setup pgbouncer haproxy redis-server nutcracker
	cargo run --release -p benches -- postgres
	cargo run --release -p benches -- redis
	cargo run --release -p benches -- api
