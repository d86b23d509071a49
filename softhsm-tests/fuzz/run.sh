#!/bin/sh
# Builds the fuzz targets and runs each for so many seconds, one a core at a time; then says what was
# found. Corpora, logs and inputs that broke something stay under target/fuzz.
#
#     softhsm-tests/fuzz/run.sh SECONDS [TARGET…]
set -eu
cd "$(dirname "$0")/../.."
fuzz=target/fuzz
triple=$(rustc -vV | sed -n 's/^host: //p')
programs=$fuzz/$triple/release

if [ "$1" = --one ]; then
    seconds=$2 target=$3
    mkdir -p "$fuzz/corpus/$target" "$fuzz/found/$target"
    log=$fuzz/$target.log
    if "$programs/$target" -max_total_time="$seconds" -timeout=60 -print_final_stats=1 \
        -artifact_prefix="$fuzz/found/$target/" "$fuzz/corpus/$target" >"$log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        printf '  %-10s %9s inputs\n' "$target" "$runs"
        exit 0
    fi
    {
        printf '  %-10s FAILED, see %s:\n' "$target" "$log"
        # Without a word of its own it was ended from outside.
        { grep -E -A 2 'panicked at|^==[0-9]+== ERROR' "$log" || tail -n 1 "$log"; } | head -n 6 | cut -c 1-300
        sed -n "s|^artifact_prefix=.*written to \(.*\)|  to repeat: $programs/$target \1|p" "$log"
    } >&2
    exit 1
fi

seconds=$1
shift
# cargo-fuzz has no --locked of its own. No sanitizer, so that a stable toolchain will do: the code
# under test is safe Rust.
cargo fetch --locked --manifest-path softhsm-tests/fuzz/Cargo.toml
cargo fuzz build --fuzz-dir softhsm-tests/fuzz --sanitizer none --target "$triple" --target-dir "$fuzz"
[ $# -gt 0 ] || set -- $(cargo fuzz list --fuzz-dir softhsm-tests/fuzz)
echo "$# targets, $seconds seconds each:"
printf '%s\n' "$@" | xargs -n 1 -P "$(nproc)" sh softhsm-tests/fuzz/run.sh --one "$seconds"
