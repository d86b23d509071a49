#!/bin/sh
# Makes the two SoftHSM tokens of one appliance: countersign-record and countersign-admin.
#
#   provision.sh FOLDER
#
# Under FOLDER, all of it for the owner alone:
#   softhsm2.conf      what SOFTHSM2_CONF of the daemon points to
#   tokens/            the tokens
#   pins/              record.pin and admin.pin for the daemon; record.so-pin and admin.so-pin to be
#                      kept elsewhere. A PIN file that is already there is used, else one is drawn.
#   serials.toml       the [tokens] part of a ceremony file
# Run again, it keeps tokens that exist and only writes serials.toml anew.
#
# PINs never stand on a command line: softhsm2-util reads them from a terminal, which script(1) lends
# it; script's copy of what was typed goes to /dev/null.
set -eu

usage() {
    echo "usage: $0 FOLDER" >&2
    exit 64
}
[ $# -eq 1 ] || usage
case $1 in -*) usage ;; esac

fail() {
    echo "provision.sh: $*" >&2
    exit 1
}

command -v softhsm2-util >/dev/null || fail "softhsm2-util is missing: install softhsm2"
command -v script >/dev/null || fail "script is missing: install bsdutils"

umask 077
mkdir -p "$1/tokens" "$1/pins"
folder=$(cd "$1" && pwd)
printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n' \
    "$folder/tokens" >"$folder/softhsm2.conf"
SOFTHSM2_CONF=$folder/softhsm2.conf
export SOFTHSM2_CONF

# The PIN in a file, drawn (32 hexadecimal digits) if there is none yet.
pin() {
    [ -s "$1" ] || head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$1"
    length=$(tr -d '\n' <"$1" | wc -c)
    [ "$length" -ge 4 ] && [ "$length" -le 255 ] || fail "$1 does not hold a PIN of 4 to 255 characters"
    tr -d '\n' <"$1"
}

# The serial number of the token with a label; nothing if there is none.
serial() {
    softhsm2-util --show-slots | awk -v want="$1" '
        /Serial number:/ { serial = $3 }
        /^ *Label:/ { if ($2 == want && NF == 2) print serial }'
}

for role in record admin; do
    label=countersign-$role
    found=$(serial "$label" | wc -l)
    [ "$found" -le 1 ] || fail "$found tokens are labelled $label in $folder/tokens: remove the wrong ones"
    [ "$found" -eq 0 ] || continue
    so_pin=$(pin "$folder/pins/$role.so-pin")
    user_pin=$(pin "$folder/pins/$role.pin")
    printf '%s\n%s\n%s\n%s\n' "$so_pin" "$so_pin" "$user_pin" "$user_pin" |
        script -qec "softhsm2-util --init-token --free --label $label" /dev/null >/dev/null ||
        fail "softhsm2-util could not make the token $label; run it by hand with SOFTHSM2_CONF=$SOFTHSM2_CONF to see why"
    [ -n "$(serial "$label")" ] || fail "the new token $label does not show up"
done

cmp -s "$folder/pins/record.pin" "$folder/pins/admin.pin" && fail "both tokens have the same PIN: give them different ones"

for role in admin record; do
    printf '[tokens.%s]\nlabel = "countersign-%s"\nserial = "%s"\n\n' "$role" "$role" "$(serial "countersign-$role")"
done >"$folder/serials.toml"
cat "$folder/serials.toml"
