# The README's commands. Each does all the set-up it needs on a fresh Debian 12 machine with Rust.
.PHONY: test setup

# Missing Debian packages are installed; nothing is done where all are there.
setup:
	@scripts/setup

test: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test --workspace
	scripts/fuzz
