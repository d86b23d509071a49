#!/bin/sh
# What the commands openssl, ssh-keygen and unzip say, with the daemon running.
#
#   commands.sh WORK BIN
#
# WORK holds stage/ (of the quickstart) and evidence/ (the bundle, unpacked); BIN the programs.
set -u
work=$1 bin=$2
here=$(cd "$(dirname "$0")" && pwd)
export COUNTERSIGN_PROFILE="$work/stage/auditor-1.profile.toml" XDG_STATE_HOME="$work/stage/state"
mkdir -p "$work/signed" && cd "$work/signed" || exit 1
failed=0

# check NAME COMMAND...: one line for each check.
check() {
    name=$1
    shift
    if said=$("$@" 2>&1); then
        echo "ok    $name: $(echo "$said" | tail -n 1)"
    else
        echo "$said" >&2
        echo "FAIL  $name: $*"
        failed=1
    fi
}

# verify KID SIGNED SIGNATURE: with the PEM of the bundle, as its algorithm wants it.
verify() {
    pem=$work/evidence/keys/$1.pem
    case $(openssl pkey -pubin -in "$pem" -noout -text) in
    *ED25519*) openssl pkeyutl -verify -pubin -inkey "$pem" -rawin -in "$2" -sigfile "$3" ;;
    *) openssl dgst -sha256 -verify "$pem" -signature "$3" "$2" ;;
    esac
}

# verify_only KID SIGNED SIGNATURE: the signature holds over these bytes, and not over others.
verify_only() {
    verify "$@" || return 1
    printf ' ' | cat "$2" - >changed
    ! verify "$1" changed "$3" >/dev/null 2>&1 || { echo "accepted over other bytes"; return 1; }
    echo "verified by $(openssl version | cut -d ' ' -f 1,2) with $1"
}

# record TRAIL SEQ: what the HSM signed to prove a record; the record names the key.
record() {
    "$bin/countersign" record "$1" "$2" --force --signed-bytes signed --signature signature --bytes record >/dev/null ||
        return 1
    kid=$(sed 's/.*"kids":\["\([^"]*\)"\].*/\1/' record)
    verify_only "$kid" signed signature
}

# checkpoint TRAIL: the exported checkpoint; its text and, after four bytes of key id, the signature.
checkpoint() {
    file="$work/evidence/trails/$(echo "$1" | tr / '~')/checkpoint"
    head -n 3 "$file" >text
    sed -n '5s/.* //p' "$file" | base64 -d | tail -c +5 >signature
    kid=$(sed 's/},{/\n/g' "$work/evidence/keys.json" |
        sed -n '/"purpose":"\(admin-\)\{0,1\}checkpoint"/s|.*"kid":"\([^"]*\)".*"trail":"'"$1"'".*|\1|p')
    verify_only "$kid" text signature
}

# pem: the daemon hands out the same PEM files as the bundle.
pem() {
    rm -rf keys
    "$bin/countersign" keys --out keys >/dev/null || return 1
    for file in "$work"/evidence/keys/*.pem; do
        cmp "$file" "keys/${file##*/}" || return 1
    done
    cmp "$work/evidence/vkeys.txt" keys/vkeys.txt && cmp "$work/evidence/jwks.json" keys/jwks.json || return 1
    echo "same PEM, vkey lines and JWK Set from daemon and bundle"
}

signed_by() {
    ssh-keygen -Y verify -f ceremony/allowed_signers -I "$1" -n "$2" -s "$3" <"$4"
}

# person MEMBER: this person signed the genesis, for that purpose, and nobody else did it for them.
person() {
    signed_by "$1" genesis@countersign "ceremony/$1.sig" ceremony/genesis.json || return 1
    printf ' ' | cat ceremony/genesis.json - >changed
    ! signed_by "$1" genesis@countersign "ceremony/$1.sig" changed || return 1
    ! signed_by "$1" approve@countersign "ceremony/$1.sig" ceremony/genesis.json || return 1
    for other in ceremony/*.sig; do
        [ "$other" = "ceremony/$1.sig" ] && continue
        ! signed_by "$1" genesis@countersign "$other" ceremony/genesis.json || return 1
    done
    echo "a good signature of the genesis for $1 alone"
}

fingerprint() {
    [ "$(sha256sum <ceremony/genesis.json | cut -d ' ' -f 1)" = "$(cat "$work/stage/genesis.fingerprint")" ] || return 1
    echo "SHA-256 of the genesis"
}

check "unzip: the bundle" unzip -tq "$work/stage/evidence.zip"
check "countersign keys: as in the bundle" pem
for trail in $(cut -d + -f 1 "$work/evidence/vkeys.txt"); do
    case $trail in
    */admin) ;;
    *) for seq in 0 1 1000; do check "openssl: record $seq of $trail" record "$trail" "$seq"; done ;;
    esac
    check "openssl: checkpoint of $trail" checkpoint "$trail"
done
rm -rf ceremony
python3 "$here/ceremony.py" "$work/evidence" ceremony || exit 1
check "sha256sum: the genesis fingerprint" fingerprint
for signature in ceremony/*.sig; do
    name=${signature##*/}
    check "ssh-keygen: the genesis is signed by ${name%.sig}" person "${name%.sig}"
done
exit $failed
