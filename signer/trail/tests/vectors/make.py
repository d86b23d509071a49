"""Writes record.json, parts.json, dsse.json, signing.json and documents.json again.

An implementation of its own of the formats in docs/src/formats: it shares no code with the crate,
so that a vector which both agree on says something. Needs Python 3.9 and `cryptography` 42.
Every key is fixed and every signature deterministic: a second run writes the same bytes.
"""

import base64
import hashlib
import json
import pathlib
import struct

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

HERE = pathlib.Path(__file__).parent
RECORD_TYPE = "application/vnd.countersign.record.v1+json"
PROBE_TYPE = "application/vnd.countersign.probe.v1+json"
STATEMENT_TYPE = "application/vnd.in-toto+json"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


# ---- encodings -----------------------------------------------------------------------------------

def jcs(value) -> str:
    """RFC 8785 for values without floats whose member names are ASCII."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def hexhash(data: bytes) -> str:
    return sha256(data).hex()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def leaf_hash(data: bytes) -> str:
    return hexhash(b"\x00" + data)


def tree_root(leaves: list) -> str:
    """RFC 6962, 2.1, over leaf hashes in hexadecimal."""
    if not leaves:
        return hexhash(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    left, right = tree_root(leaves[:k]), tree_root(leaves[k:])
    return hexhash(b"\x01" + bytes.fromhex(left) + bytes.fromhex(right))


def pae(payload_type: str, payload: bytes) -> bytes:
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


# ---- keys ----------------------------------------------------------------------------------------

class Key:
    """A key whose private 32 bytes are one value, repeated."""

    def __init__(self, algorithm: str, seed: int):
        self.algorithm = algorithm
        self.private = bytes([seed]) * 32
        if algorithm == "ed25519":
            self.key = ed25519.Ed25519PrivateKey.from_private_bytes(self.private)
        else:
            self.key = ec.derive_private_key(int.from_bytes(self.private, "big"), ec.SECP256R1())
        self.spki = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        if algorithm == "ed25519":
            self.raw = self.spki[-32:]
            jwk = {"crv": "Ed25519", "kty": "OKP", "x": b64url(self.raw)}
        else:
            self.raw = self.spki[-65:]
            x, y = self.raw[1:33], self.raw[33:]
            jwk = {"crv": "P-256", "kty": "EC", "x": b64url(x), "y": b64url(y)}
        self.kid = b64url(sha256(jcs(jwk).encode()))

    def sign(self, message: bytes) -> bytes:
        """In wire form: 64 bytes, or minimal DER with low S (nonce of RFC 6979)."""
        if self.algorithm == "ed25519":
            return self.key.sign(message)
        r, s = self.sign_ecdsa(message)
        return utils.encode_dss_signature(r, min(s, P256_ORDER - s))

    def sign_ecdsa(self, message: bytes):
        algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
        return utils.decode_dss_signature(self.key.sign(message, algorithm))

    def facts(self) -> dict:
        return {
            "algorithm": self.algorithm,
            "private_key": self.private.hex(),
            "spki": self.spki.hex(),
            "kid": self.kid,
        }


# ---- records -------------------------------------------------------------------------------------

def record(trail, seq, time, prev, kids, content) -> str:
    header = {"kids": kids, "prev": prev, "seq": str(seq), "time": time, "trail": trail, "v": 1}
    return jcs(header | content)


def control(kind, body) -> dict:
    return {"kind": "control", "category": "config", "type": f"countersign.{kind}", "body": body}


def record_vectors() -> dict:
    trail, key = "acme.example/decisions", Key("ed25519", 0x11)
    first_prev = hexhash(b"the record that approved the trail")
    contents = [
        control("trail", {"admin_seq": "0", "admin_trail": "acme.example/admin", "mode": "record"}),
        {
            "kind": "event", "type": "llm.completion", "category": "redaction",
            "decision": "redact", "result": "redacted", "event_id": 'quote " and \\ backslash'.replace(" ", "_"),
            "client": "gw-1", "links": [],
            "parts": {"facts": hexhash(b"facts"), "request": hexhash(b"request")},
        },
        control("heartbeat", {"since": "2026-01-31T08:00:01.000002Z"}),
    ]
    times = ["2026-01-31T08:00:00.000000Z", "2026-01-31T08:00:01.000002Z", "2026-01-31T09:00:01.000002Z"]
    records, leaves = [], []
    for seq, (time, content) in enumerate(zip(times, contents)):
        records.append(record(trail, seq, time, leaves[-1] if leaves else first_prev, [key.kid], content))
        leaves.append(leaf_hash(records[-1].encode()))
    linked = dict(contents[1], event_id="e-2", category="normal", decision="none", result="pending", parts={},
                  links=[{"leaf_hash": leaves[1], "rel": "retry", "seq": "1", "trail": trail}])
    records.append(record(trail, 3, times[2], leaves[-1], [key.kid], linked))
    leaves.append(leaf_hash(records[-1].encode()))
    good = records[1]
    swaps = [
        ("white space", '{"category"', '{ "category"'),
        ("bytes after the object", '"v":1}', '"v":1}\n'),
        ("an unknown member", '"v":1}', '"v":1,"w":1}'),
        ("a member twice", '"v":1}', '"v":1,"v":1}'),
        ("members out of order", '"trail":"acme.example/decisions","type":"llm.completion"',
         '"type":"llm.completion","trail":"acme.example/decisions"'),
        ("another version", '"v":1}', '"v":2}'),
        ("a float", '"v":1}', '"v":1.0}'),
        ("a number for a decimal string", '"seq":"1"', '"seq":1'),
        ("a leading zero", '"seq":"1"', '"seq":"01"'),
        ("a sequence number beyond 64 bits", '"seq":"1"', '"seq":"18446744073709551616"'),
        ("upper-case hexadecimal", hexhash(b"facts"), hexhash(b"facts").upper()),
        ("a short hash", hexhash(b"facts"), hexhash(b"facts")[:62]),
        ("a time without microseconds", "08:00:01.000002Z", "08:00:01Z"),
        ("a time with an offset", "08:00:01.000002Z", "08:00:01.000002+00:00"),
        ("a day that does not exist", "2026-01-31T", "2026-02-29T"),
        ("an unknown category", '"redaction"', '"redactions"'),
        ("an event id with a space", "quote_", "quote "),
        ("an event of a control type", "llm.completion", "countersign.gap"),
        ("a member of an event missing", '"client":"gw-1",', ""),
        ("an event with a body", '{"category"', '{"body":{},"category"'),
        ("a part name with a digit", '"facts":', '"facts1":'),
        ("an escape that is not canonical", '"gw-1"', '"gw\\u002d1"'),
        ("an origin in upper case", "acme.example/decisions", "Acme.example/decisions"),
    ]
    refused = []
    for why, old, new in swaps:
        assert old in good, why
        refused.append({"why": why, "record": good.replace(old, new, 1)})
    refused.append({"why": "a control record of another category",
                    "record": records[2].replace('"config"', '"normal"', 1)})
    refused.append({"why": "a control record with a type of an event",
                    "record": records[2].replace("countersign.heartbeat", "heartbeat", 1)})
    refused.append({"why": "a float in a body",
                    "record": records[2].replace('{"since":"2026-01-31T08:00:01.000002Z"}', '{"n":1.5}', 1)})
    many = dict(linked, links=linked["links"] * 17)
    refused.append({"why": "17 links", "record": record(trail, 3, times[2], leaves[2], [key.kid], many)})
    named = {f"{'p' * 31}{chr(97 + n)}": hexhash(b"") for n in range(17)}
    many = dict(linked, parts=named)
    refused.append({"why": "17 parts", "record": record(trail, 3, times[2], leaves[2], [key.kid], many)})
    return {
        "key": key.facts(),
        "trail": trail,
        "first_prev": first_prev,
        "records": [
            {"record": text, "leaf_hash": leaf, "root": tree_root(leaves[: n + 1]),
             "signature": key.sign(pae(RECORD_TYPE, text.encode())).hex()}
            for n, (text, leaf) in enumerate(zip(records, leaves))
        ],
        "refused": refused,
    }


def part_vectors() -> dict:
    cases = [
        ("facts", "application/json", b'{"occurred_at":"2026-01-31T08:00:00.000000Z"}', 0x07),
        ("facts", "application/json", b"{}", 0x07),
        ("request", "text/plain", "Grüße".encode(), 0x08),
        ("response", "application/octet-stream", bytes(range(256)), 0xFF),
        ("response", "text/plain", b"", 0x00),
    ]
    parts = []
    for name, media_type, data, salt in cases:
        salt = bytes([salt]) * 32
        message = b"countersign/part/v1\0" + name.encode() + b"\0" + media_type.encode() + b"\0" + salt + data
        parts.append({
            "name": name, "media_type": media_type, "salt": salt.hex(), "data": data.hex(),
            "commitment": hexhash(message),
        })
    return {"parts": parts}


# ---- DSSE ----------------------------------------------------------------------------------------

def envelope(payload_type, payload, keys) -> str:
    message = pae(payload_type, payload)
    signatures = [{"keyid": key.kid, "sig": b64(key.sign(message))} for key in sorted(keys, key=lambda k: k.kid)]
    return jcs({"payload": b64(payload), "payloadType": payload_type, "signatures": signatures})


def dsse_vectors() -> dict:
    one, two = Key("ed25519", 0x11), Key("ecdsa-p256", 0x33)
    # The DSSE specification's own example of the encoding.
    encodings = [("http://example.com/HelloWorld", b"hello world"), (RECORD_TYPE, b""),
                 (PROBE_TYPE, bytes(range(10, 20)))]
    payload = b'{"hello":"world"}'
    cases = [(RECORD_TYPE, payload, [one]), (STATEMENT_TYPE, payload, [two]), (PROBE_TYPE, b"", [one, two])]
    good = envelope(RECORD_TYPE, payload, [one])
    both = json.loads(envelope(RECORD_TYPE, payload, [one, two]))
    signature = json.loads(good)["signatures"][0]

    def with_signatures(signatures):
        return jcs(dict(json.loads(good), signatures=signatures))

    refused = [
        ("white space", good.replace(",", ", ", 1)),
        ("a line feed at the end", good + "\n"),
        ("an unknown member", good.replace("{", '{"a":1,', 1)),
        ("a member twice", good.replace('"payloadType"', '"payload":"","payloadType"', 1)),
        ("members out of order", json.dumps({k: json.loads(good)[k] for k in ("payloadType", "payload", "signatures")},
                                            separators=(",", ":"))),
        ("base64 without padding", good.replace(b64(payload), b64(payload).rstrip("="), 1)),
        ("base64 of the other alphabet", good.replace('"sig":"' + signature["sig"], '"sig":"-_' + signature["sig"][2:], 1)),
        ("base64 with bits after the end", good.replace(b64(payload), b64(payload).replace("0=", "1="), 1)),
        ("no signature", with_signatures([])),
        ("17 signatures", with_signatures([dict(signature, keyid=Key("ed25519", n).kid) for n in range(1, 18)])),
        ("a keyid twice", with_signatures([signature, signature])),
        ("signatures not in the order of their keyids", with_signatures(both["signatures"][::-1])),
        ("a keyid that is no kid", with_signatures([dict(signature, keyid="key-1")])),
        ("an empty payload type", good.replace(RECORD_TYPE, "", 1)),
    ]
    assert b64(payload).endswith("0="), b64(payload)
    flipped = bytearray(base64.b64decode(signature["sig"]))
    flipped[0] ^= 1
    r, s = two.sign_ecdsa(pae(RECORD_TYPE, payload))
    high = utils.encode_dss_signature(r, max(s, P256_ORDER - s))
    not_verified = [
        ("a changed signature", one, with_signatures([dict(signature, sig=b64(bytes(flipped)))])),
        ("another payload", one, good.replace(b64(payload), b64(b'{"hello":"World"}'), 1)),
        ("a signature of another key", two, good),
        ("a high S", two, with_signatures([{"keyid": two.kid, "sig": b64(high)}])),
        ("the payload signed without its encoding", one,
         with_signatures([dict(signature, sig=b64(one.sign(payload)))])),
    ]
    return {
        "keys": [one.facts(), two.facts()],
        "encodings": [{"payload_type": t, "payload": p.hex(), "pae": pae(t, p).hex()} for t, p in encodings],
        "envelopes": [
            {"payload_type": t, "payload": p.hex(), "signed_by": sorted(k.kid for k in keys),
             "envelope": envelope(t, p, keys)}
            for t, p, keys in cases
        ],
        "refused": [{"why": why, "envelope": text} for why, text in refused],
        "not_verified": [{"why": why, "kid": key.kid, "envelope": text} for why, key, text in not_verified],
    }


# ---- what the keys sign --------------------------------------------------------------------------

def probe(key, instance, nonce, time) -> bytes:
    return jcs({"instance": instance, "kid": key.kid, "nonce": nonce, "time": time}).encode()


def signing_vectors(records) -> dict:
    trail, other = "acme.example/decisions", "acme.example/other"
    record_key, checkpoint_key = Key("ed25519", 0x11), Key("ecdsa-p256", 0x33)
    evidence_key = Key("ed25519", 0x44)
    text = records["records"][1]["record"].encode()
    nonce = hexhash(b"nonce")
    checkpoint = f"{trail}\n4\n{b64(bytes.fromhex(records['records'][3]['root']))}\n".encode()
    statement = jcs({
        "_type": "https://in-toto.io/Statement/v1", "subject": [],
        "predicateType": "https://countersign.dev/evidence-manifest/v1",
        "predicate": {"kid": evidence_key.kid, "number": "5", "v": 1},
    }).encode()
    probes = []
    for key in (record_key, checkpoint_key):
        payload = probe(key, "acme-1", nonce, "2026-01-31T07:59:00.000000Z")
        message = pae(PROBE_TYPE, payload)
        probes.append({**key.facts(), "payload": payload.decode(), "message": message.hex(),
                       "signature": key.sign(message).hex()})
    a_probe = probes[0]["message"]
    record_message = pae(RECORD_TYPE, text).hex()
    statement_message = pae(STATEMENT_TYPE, statement).hex()

    def case(purpose, trail, key, message, **result):
        return {"purpose": purpose, "trail": trail, "kid": key.kid, "message": message, **result}

    positions = [
        case("record", trail, record_key, record_message, position=f"record {trail} 1"),
        case("checkpoint", trail, checkpoint_key, checkpoint.hex(), position=f"checkpoint {trail} 4"),
        case("admin-checkpoint", trail, checkpoint_key, checkpoint.hex(), position=f"checkpoint {trail} 4"),
        case("evidence", None, evidence_key, statement_message, position=f"statement {evidence_key.kid} 5"),
    ] + [
        case(purpose, None if purpose == "evidence" else trail, record_key, a_probe, position=f"probe {nonce}")
        for purpose in ("record", "checkpoint", "admin-checkpoint", "evidence")
    ]
    counted = pae(RECORD_TYPE, text).replace(b" %d {" % len(text), b" 0%d {" % len(text), 1)
    refused = [
        case("checkpoint", trail, checkpoint_key, record_message, why="a record by a checkpoint key"),
        case("evidence", None, evidence_key, record_message, why="a record by the evidence key"),
        case("record", trail, record_key, checkpoint.hex(), why="a checkpoint by a record key"),
        case("record", trail, record_key, statement_message, why="a statement by a record key"),
        case("record", other, record_key, record_message, why="a record of another trail"),
        case("record", trail, checkpoint_key, record_message, why="a record that does not name the key"),
        case("checkpoint", other, checkpoint_key, checkpoint.hex(), why="a checkpoint of another trail"),
        case("evidence", None, record_key, statement_message, why="a statement that names another key"),
        case("record", trail, checkpoint_key, a_probe, why="a probe of another key"),
        case("record", trail, record_key, text.hex(), why="a record without its DSSE encoding"),
        case("record", trail, record_key, record_message + "20", why="a byte after the encoding"),
        case("record", trail, record_key, counted.hex(), why="a length with a leading zero"),
        case("record", trail, record_key, sha256(text).hex(), why="a digest"),
        case("record", trail, record_key, "", why="nothing"),
    ]
    return {"probes": probes, "positions": positions, "refused": refused}


# ---- documents -----------------------------------------------------------------------------------

def ssh_string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def ssh_mpint(number: int) -> bytes:
    return ssh_string(number.to_bytes(number.bit_length() // 8 + 1, "big"))


def ssh_blob(key) -> bytes:
    if key.algorithm == "ed25519":
        return ssh_string(b"ssh-ed25519") + ssh_string(key.raw)
    return ssh_string(b"ecdsa-sha2-nistp256") + ssh_string(b"nistp256") + ssh_string(key.raw)


def ssh_line(key) -> str:
    kind = "ssh-ed25519" if key.algorithm == "ed25519" else "ecdsa-sha2-nistp256"
    return f"{kind} {b64(ssh_blob(key))}"


def ssh_fingerprint(key) -> str:
    return "SHA256:" + b64(sha256(ssh_blob(key))).rstrip("=")


def sshsig(key, namespace: str, document: bytes) -> str:
    """PROTOCOL.sshsig with SHA-512, armored as ssh-keygen does."""
    space, digest = ssh_string(namespace.encode()), ssh_string(hashlib.sha512(document).digest())
    message = b"SSHSIG" + space + ssh_string(b"") + ssh_string(b"sha512") + digest
    if key.algorithm == "ed25519":
        signature = ssh_string(b"ssh-ed25519") + ssh_string(key.sign(message))
    else:
        r, s = key.sign_ecdsa(message)
        signature = ssh_string(b"ecdsa-sha2-nistp256") + ssh_string(ssh_mpint(r) + ssh_mpint(s))
    blob = (b"SSHSIG" + struct.pack(">I", 1) + ssh_string(ssh_blob(key)) + space + ssh_string(b"")
            + ssh_string(b"sha512") + ssh_string(signature))
    text = b64(blob)
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""])


ADMIN, DECISIONS, METRICS = "acme.example/admin", "acme.example/decisions", "acme.example/metrics"
PEOPLE = {"alice": Key("ed25519", 0x21), "bob": Key("ecdsa-p256", 0x22), "carol": Key("ed25519", 0x23),
          "dave": Key("ed25519", 0x24)}


def ceremony_plan() -> dict:
    def member(name, role, **more):
        base = {"grants": [], "id": name, "name": f"The member {name}", "role": role,
                "spiffe_ids": [f"spiffe://acme.example/{name}"], "ssh_keys": []}
        return {**base, **more}

    members = [member(name, "administrator", ssh_keys=[ssh_line(key)]) for name, key in PEOPLE.items()]
    members += [member("audrey", "auditor"), member("gw-1", "gateway", grants=[DECISIONS, METRICS]),
                member("olga", "operator")]
    # Any DER will do here: an INTEGER within a SEQUENCE.
    root = b64(bytes([0x30, 0x03, 0x02, 0x01, 0x05]))
    return {
        "admin_algorithm": "ecdsa-p256",
        "admin_token": {"label": "countersign-admin", "serial": "0a0a0a0a0a0a0a0a"},
        "admin_trail": ADMIN, "approvals": 2, "client_roots": [root], "created": "2026-01-31T07:00:00.000000Z",
        "document": "countersign.plan", "evidence_algorithm": "ed25519", "instance": "acme-1",
        "members": sorted(members, key=lambda m: m["id"]), "nonce": hexhash(b"nonce"),
        "record_token": {"label": "countersign-record", "serial": "0b0b0b0b0b0b0b0b"},
        "trails": [
            {"checkpoint_algorithm": "ecdsa-p256", "mode": "record", "origin": DECISIONS, "record_algorithm": "ed25519"},
            {"checkpoint_algorithm": "ed25519", "mode": "batch", "origin": METRICS},
        ],
        "v": 1,
    }


def document_vectors() -> dict:
    plan = ceremony_plan()
    plan_text = jcs(plan)
    plan_hash = hexhash(plan_text.encode())
    slots = [("admin-checkpoint", ADMIN, "ecdsa-p256", "admin"), ("evidence", None, "ed25519", "record"),
             ("checkpoint", DECISIONS, "ecdsa-p256", "record"), ("record", DECISIONS, "ed25519", "record"),
             ("checkpoint", METRICS, "ed25519", "record")]
    attributes = {"always_sensitive": True, "extractable": False, "local": True, "never_extractable": True,
                  "sensitive": True, "sign": True}
    keys, made = {}, []
    for seed, (purpose, trail, algorithm, token) in enumerate(slots, 1):
        key = keys[purpose, trail] = Key(algorithm, seed)
        payload = probe(key, "acme-1", hexhash(bytes([seed])), "2026-01-31T07:30:00.000000Z")
        entry = {
            "algorithm": algorithm, "attributes": attributes, "cka_id": (bytes([seed]) * 16).hex(), "kid": key.kid,
            "origin": "generated", "probe": b64(payload), "probe_signature": b64(key.sign(pae(PROBE_TYPE, payload))),
            "purpose": purpose, "spki": b64(key.spki), "token": token,
        }
        made.append(entry | ({"trail": trail} if trail else {}))
    made.sort(key=lambda entry: base64.urlsafe_b64decode(entry["kid"] + "="))
    start, sealed = "2026-01-31T07:31:00.000000Z", "2026-01-31T08:00:00.000000Z"
    admin_kid = keys["admin-checkpoint", ADMIN].kid
    first = {ADMIN: record(ADMIN, 0, start, plan_hash, [admin_kid], control("plan", {"plan": plan_hash}))}
    admin_leaf = leaf_hash(first[ADMIN].encode())
    for trail, mode, purpose in ((DECISIONS, "record", "record"), (METRICS, "batch", "checkpoint")):
        body = {"admin_seq": "0", "admin_trail": ADMIN, "mode": mode}
        first[trail] = record(trail, 0, start, admin_leaf, [keys[purpose, trail].kid], control("trail", body))
    leaves = {trail: leaf_hash(text.encode()) for trail, text in first.items()}

    def token(role, label):
        return {"firmware": "2.6", "label": label, "manufacturer": "Tests", "model": "Software",
                "module": hexhash(b"module"), "role": role, "serial": plan[f"{role}_token"]["serial"]}

    genesis = jcs({
        "created": start, "document": "countersign.genesis", "instance": "acme-1", "keys": made, "plan": plan_hash,
        "records": [{"leaf_hash": leaves[trail], "trail": trail} for trail in sorted(leaves)],
        "tokens": [token("admin", "countersign-admin"), token("record", "countersign-record")], "v": 1,
    })
    fingerprint = hexhash(genesis.encode())
    armors = {name: sshsig(key, "genesis@countersign", genesis.encode()) for name, key in PEOPLE.items()}
    body = {
        "genesis": fingerprint,
        "heads": [{"root": leaves[trail], "size": "1", "trail": trail} for trail in (DECISIONS, METRICS)],
        "signatures": [
            {"document": hexhash(armors[name].encode()), "key": ssh_fingerprint(key), "member": name}
            for name, key in sorted(PEOPLE.items())
        ],
    }
    seal = record(ADMIN, 1, sealed, admin_leaf, [admin_kid], control("genesis", body))
    return {
        "plan": plan_text, "plan_sha256": plan_hash,
        "genesis": genesis, "fingerprint": fingerprint,
        "signatures": [{"member": name, "ssh_key": ssh_line(PEOPLE[name]), "armor": armor,
                        "sha256": hexhash(armor.encode())} for name, armor in sorted(armors.items())],
        "first_records": [{"trail": trail, "record": first[trail], "leaf_hash": leaves[trail]}
                          for trail in (ADMIN, DECISIONS, METRICS)],
        "admin_records": [first[ADMIN], seal],
        "admin_root": tree_root([admin_leaf, leaf_hash(seal.encode())]),
    }


def write(name: str, value: dict):
    (HERE / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main():
    records = record_vectors()
    write("record.json", records)
    write("parts.json", part_vectors())
    write("dsse.json", dsse_vectors())
    write("signing.json", signing_vectors(records))
    write("documents.json", document_vectors())


main()
