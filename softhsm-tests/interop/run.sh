#!/bin/sh
# Checks what the appliance issues with software that others wrote. See README.md.
#
# Everything is made under target/interop. The programs are those in COUNTERSIGN_BIN_DIR
# (target/release by default). Ends with `N passed, N failed`, and non-zero when anything failed.
set -eu
cd "$(dirname "$0")/../.."
root=$PWD
here=$root/softhsm-tests/interop
export PYTHONDONTWRITEBYTECODE=1
work=$root/target/interop
bin=$(cd "${COUNTERSIGN_BIN_DIR:-target/release}" 2>/dev/null && pwd) || bin=${COUNTERSIGN_BIN_DIR:-target/release}

# Nothing is skipped: whatever is missing is named, with the Debian package that has it.
missing=""
need() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
need python3 python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'
need python3-venv python3 -c 'import ensurepip, venv'
need nodejs node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 18 ? 1 : 0)'
need npm npm --version
need openssl sh -c 'case $(openssl version) in "OpenSSL "[3-9]*) ;; *) exit 1 ;; esac'
need openssh-client command -v ssh-keygen
need softhsm2 command -v softhsm2-util
need unzip command -v unzip
if [ -n "$missing" ]; then
    echo "interop needs Python 3.11, Node.js 18, OpenSSL 3, OpenSSH, SoftHSM 2 and unzip, each or newer." >&2
    echo "Missing or too old:$missing; install them: sudo apt-get install$missing" >&2
    exit 1
fi
for program in quickstart countersign countersignd countersign-verify; do
    [ -x "$bin/$program" ] && continue
    echo "$bin/$program is missing; make interop builds it first" >&2
    exit 1
done

mkdir -p "$work"
# fresh LOCK FOLDER: the folder was installed from exactly this lock file.
fresh() { cmp -s "$here/$1" "$work/$2/installed-from"; }
if ! fresh requirements.txt venv; then
    echo "installing the Python packages of requirements.txt"
    rm -rf "$work/venv"
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
        --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$work/venv/installed-from"
fi
if ! fresh package-lock.json node; then
    echo "installing the npm packages of package-lock.json"
    rm -rf "$work/node"
    mkdir "$work/node"
    cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$work/node/"
    (cd "$work/node" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    cp "$here/package-lock.json" "$work/node/installed-from"
fi
# Node looks for packages from where a module stands.
cp "$here"/*.mjs "$work/node/"

stop() {
    if [ -f "$work/stage/countersignd.pid" ]; then
        kill "$(cat "$work/stage/countersignd.pid")" 2>/dev/null || true
        rm -f "$work/stage/countersignd.pid"
    fi
}
trap stop EXIT
trap 'exit 1' INT TERM
echo "setting the stage: every sample event in both modes and both algorithms"
if ! "$bin/quickstart" "$work/stage" softhsm-tests/testdata/gateway-events.jsonl --every-algorithm --keep \
    >"$work/quickstart.log" 2>&1; then
    cat "$work/quickstart.log" >&2
    exit 1
fi
rm -rf "$work/evidence" "$work/proofs"
mkdir "$work/evidence" "$work/proofs"
unzip -qq "$work/stage/evidence.zip" -d "$work/evidence"
ln -sf "$work"/stage/receipts-batch-*.jsonl "$work/"

: >"$work/results"
# run NAME COMMAND...: a script of checks; one that ends badly without saying so is a failure too.
run() {
    name=$1
    shift
    status=0
    "$@" >"$work/lines" || status=$?
    if [ $status -ne 0 ] && ! grep -q '^FAIL' "$work/lines"; then
        echo "FAIL  $name: ended with status $status" >>"$work/lines"
    fi
    tee -a "$work/results" <"$work/lines"
}
python="$work/venv/bin/python"

# The daemon's own proofs, from the first record to the last.
for trail in $(cut -d + -f 1 "$work/evidence/vkeys.txt"); do
    case $trail in */admin) last=2 ;; *) last=2120 ;; esac
    for seq in 0 1 $last; do
        file="$work/proofs/$(echo "$trail" | tr / '~')-$seq"
        "$bin/countersign" proof --profile "$work/stage/auditor-1.profile.toml" "$trail" "$seq" \
            --out "$file.proof" --record "$file.record" >/dev/null
    done
done
run evidence.py "$python" "$here/evidence.py" "$work/stage/evidence.zip"
run tlog.mjs node "$work/node/tlog.mjs" "$work"
run jwk.mjs node "$work/node/jwk.mjs" "$work/evidence"
run commands.sh sh "$here/commands.sh" "$work" "$bin"
run gateway_answers.py "$python" "$here/gateway_answers.py" "$work/stage"
stop

passed=$(grep -c '^ok' "$work/results" || true)
failures=$(grep -c '^FAIL' "$work/results" || true)
echo "$passed passed, $failures failed"
[ "$failures" -eq 0 ] && [ "$passed" -gt 0 ]
