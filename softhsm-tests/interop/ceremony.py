"""Lays out what people signed at the ceremony, for ssh-keygen.

    ceremony.py EVIDENCE-FOLDER FOLDER

From the unpacked evidence: genesis.json, allowed_signers (from the plan that the genesis names), and
each person's signature, MEMBER.sig.
"""
import json
import pathlib
import sys

evidence, folder = map(pathlib.Path, sys.argv[1:])
folder.mkdir(parents=True, exist_ok=True)


def document(sha256):
    return (evidence / "documents" / sha256).read_bytes()


def admin_record(seq):
    """A record of the admin trail, from its first C2SP entry bundle: 16-bit length, bytes."""
    (bundle,) = evidence.glob("trails/*~admin/tile/entries/000*/*")
    content = bundle.read_bytes()
    for _ in range(seq):
        content = content[2 + int.from_bytes(content[:2], "big") :]
    return json.loads(content[2 : 2 + int.from_bytes(content[:2], "big")])


sealed = admin_record(1)["body"]
(folder / "genesis.json").write_bytes(document(sealed["genesis"]))
for signature in sealed["signatures"]:
    (folder / f"{signature['member']}.sig").write_bytes(document(signature["document"]))
plan = json.loads(document(admin_record(0)["body"]["plan"]))
signers = [(member["id"], key) for member in plan["members"] for key in member["ssh_keys"]]
lines = [f'{member} namespaces="genesis@countersign" {key}\n' for member, key in signers]
(folder / "allowed_signers").write_text("".join(lines))
