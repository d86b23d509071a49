"""The example gateway (docs/examples/gateway.py) against the running daemon.

    gateway_answers.py STAGE

In every trail: it signs events and its own checks hold; to repeat a call gives the identical answer;
an answer that was changed anywhere is refused.
"""
import base64
import copy
import json
import pathlib
import subprocess
import sys

from cryptography.exceptions import InvalidSignature

root = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(root / "docs" / "examples")]
import gateway
from report import check, finish, must, refused

TEXTS = ["Is the deductible 1,472 €?", "保险 C-24214 的免赔额？ 𠮷", "", '"quoted"\n\u2028\0 and controls']
REFUSALS = (ValueError, KeyError, StopIteration, InvalidSignature)

stage = pathlib.Path(sys.argv[1])
service, keys = gateway.connect(stage / "gateway-1.profile.toml", stage / "genesis.json")


def flip(data, at=-1):
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def changes(signed, proof):
    """What is changed, and how: a function of copies of request and answer. None of it may pass."""
    yield "seq before", lambda r, a: setattr(a.signed, "seq", signed.seq - 1)
    yield "seq after", lambda r, a: setattr(a.signed, "seq", signed.seq + 1)
    yield "record", lambda r, a: setattr(a.signed, "record", signed.record.replace(b"allow", b"block"))
    yield "leaf hash", lambda r, a: setattr(a.signed, "leaf_hash", flip(signed.leaf_hash))
    for at, salt in enumerate(signed.salts):
        yield f"salt of {salt.part}", lambda r, a: setattr(a.signed.salts[at], "salt", flip(salt.salt))
    yield "request", lambda r, a: setattr(r.event.request, "data", b"something else")
    yield "facts", lambda r, a: setattr(r.event.facts, "team", "another")
    yield "decision", lambda r, a: setattr(r.event, "decision", "DECISION_BLOCK")
    yield "trail", lambda r, a: setattr(r, "trail", r.trail + "x")
    if signed.signature:
        yield "signature", lambda r, a: setattr(a.signed, "signature", flip(signed.signature))
        return
    larger = proof.checkpoint.replace(b"\n2", b"\n3", 1)
    yield "checkpoint", lambda r, a: setattr(a.proof, "checkpoint", flip(proof.checkpoint, -6))
    yield "size", lambda r, a: setattr(a.proof, "checkpoint", larger)
    yield "hash", lambda r, a: a.proof.hashes.__setitem__(0, flip(proof.hashes[0]))
    yield "a hash less", lambda r, a: a.proof.hashes.pop()
    yield "a hash more", lambda r, a: a.proof.hashes.append(bytes(32))


def trail(origin):
    for text in TEXTS:
        request = gateway.pb.SignRequest(trail=origin, event=gateway.decision(text))
        answer = service.Sign(request, timeout=10)
        record = gateway.check(keys, request, answer)
        must(record["client"] == "gateway-1", "the client is who the certificate says")
        again = service.Sign(request, timeout=10)
        must(again == answer, "the identical answer to a repeated call")
    refusals = 0
    for what, change in changes(answer.signed, answer.proof):
        sent, said = copy.deepcopy(request), copy.deepcopy(answer)
        change(sent, said)
        refused(what, lambda: gateway.check(keys, sent, said), *REFUSALS)
        refusals += 1
    return f"{len(TEXTS)} events signed and checked, {refusals} changed answers refused"


def older_checkpoint(origin):
    """A genuine checkpoint that ends before the record, and its root as the only hash."""
    older, newer = (gateway.pb.SignRequest(trail=origin, event=gateway.decision(text)) for text in TEXTS[:2])
    checkpoint = service.Sign(older, timeout=10).proof.checkpoint
    answer = service.Sign(newer, timeout=10)
    answer.proof.checkpoint = checkpoint
    answer.proof.hashes[:] = [base64.b64decode(checkpoint.split(b"\n")[2])]
    refused("an older checkpoint", lambda: gateway.check(keys, newer, answer), *REFUSALS)
    return "refused"


def as_a_command(origin):
    command = [sys.executable, gateway.__file__, stage / "gateway-1.profile.toml", stage / "genesis.json", origin]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


(origins,) = (m["grants"] for m in json.loads((stage / "plan.json").read_text())["members"] if m["id"] == "gateway-1")
for origin in origins:
    check(f"grpcio, cryptography: gateway.py in {origin}", lambda: trail(origin))
    check("gateway.py as a command", lambda: as_a_command(origin))
    if "/batch/" in origin:
        check("gateway.py and a proof of an older tree", lambda: older_checkpoint(origin))
finish()
