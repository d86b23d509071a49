# Countersign. `make help` lists every command.

.DEFAULT_GOAL := help
.PHONY: help quickstart test interop crash sweep fuzz bench lint fmt deny docs clean

# Debian packages: what the quickstart needs, and what the tests need besides.
QUICKSTART_PACKAGES := softhsm2 openssh-client
EVENTS := softhsm-tests/testdata/gateway-events.jsonl
KEEP ?=
# How long each fuzz target runs.
SECONDS ?= 10

help: ## List these commands
	@echo "Countersign: signs the decisions of AI gateways with keys that cannot leave an HSM"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  make quickstart KEEP=1 leaves the daemon running and prints how to talk to it"

quickstart: ## Sign, export and verify 2,120 real events, end to end, under target/quickstart
	@sh .ci/need $(QUICKSTART_PACKAGES)
	cargo build --release --locked -p countersignd -p countersign-ctl -p countersign-verify -p countersign-stage --bins
	target/release/quickstart target/quickstart $(EVENTS) $(if $(KEEP),--keep)

test: ## Build and pass every test
	@sh .ci/need $(QUICKSTART_PACKAGES) python3 openssl
	cargo build --locked -p countersignd --features failpoints
	mkdir -p target/debug/failpoints && cp target/debug/countersignd target/debug/failpoints/
	cargo build --workspace --locked --bins --examples
	@sh .ci/run-tests

crash: ## Kill the daemon and its workers 120 times under load
	@sh .ci/need $(QUICKSTART_PACKAGES)
	cargo build --workspace --locked --bins --examples
	cargo build --locked -p countersign-faulty-module
	COUNTERSIGN_KILLS=120 cargo test --locked -p countersign-stage --test crashes random_moments -- --nocapture

sweep: ## Change every byte of evidence, one verification each, in an optimised build
	@sh .ci/need $(QUICKSTART_PACKAGES)
	cargo build --release --locked -p countersignd -p countersign-ctl -p countersign-verify -p countersign-stage --bins
	cargo test --release --locked -p countersign-verify --test every_byte
	cargo test --release --locked -p countersign-stage --test tampering

fuzz: ## Fuzz every parser of ours, 10 seconds each (SECONDS=n for another time)
	@sh .ci/need openssh-client g++
	@command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
	sh softhsm-tests/fuzz/run.sh $(SECONDS)

interop: ## Check our formats with software that others wrote (Python, Node, OpenSSL, OpenSSH)
	@sh .ci/need $(QUICKSTART_PACKAGES) openssl unzip python3 python3-venv nodejs npm
	cargo build --release --locked -p countersignd -p countersign-ctl -p countersign-verify -p countersign-stage --bins
	sh softhsm-tests/interop/run.sh

lint: fmt deny ## Check format, lints and dependencies
	cargo clippy --workspace --all-targets --locked -- -D warnings

fmt: ## Check the format alone
	cargo fmt --all --check
	cargo fmt --manifest-path softhsm-tests/fuzz/Cargo.toml --check

deny: ## Check licences, bans and sources of the dependencies alone
	@command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
	cargo deny check licenses bans sources

bench: ## Measure the token, and ours end to end beside it, in one run (some 4 minutes)
	@sh .ci/need $(QUICKSTART_PACKAGES)
	cargo build --release --locked -p countersignd -p countersign-ctl -p countersign-stage --bins
	target/release/bench target/bench

docs: ## Build the book (docs/) and the API documentation
	@command -v mdbook >/dev/null || cargo install mdbook --locked
	mdbook build docs
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

clean: ## Remove everything that was built
	cargo clean
	rm -rf docs/book
