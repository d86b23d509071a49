"""What Python's own libraries say of an evidence bundle.

    evidence.py EVIDENCE

securesystemslib: every DSSE envelope (records, manifest) and every key's probe. rfc8785: every
canonical JSON text. hashlib: every digest in the manifest, every part's commitment, every link from
a record to the one before it.
"""
import base64
import hashlib
import json
import sys
import zipfile

import rfc8785
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Signature, SSlibKey

from report import check, finish, must, refused

PROBE_TYPE = "application/vnd.countersign.probe.v1+json"
RECORD_TYPE = "application/vnd.countersign.record.v1+json"

archive = zipfile.ZipFile(sys.argv[1])
names = archive.namelist()
keys = {key["kid"]: key for key in json.loads(archive.read("keys.json"))["keys"]}


def public(kid):
    """The key as securesystemslib knows it, from the PEM of the bundle."""
    return SSlibKey.from_crypto(load_pem_public_key(archive.read(f"keys/{kid}.pem")), keyid=kid)


def folder(origin):
    return "trails/" + origin.replace("/", "~") + "/"


def under(prefix):
    """The contents of the files under a prefix, in the bundle's order, which is that of the trail."""
    return [archive.read(name) for name in names if name.startswith(prefix)]


def records(origin):
    """Every record of a trail, from its C2SP entry bundles: 16-bit length, bytes."""
    for bundle in under(folder(origin) + "tile/entries/"):
        at = 0
        while at < len(bundle):
            end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
            yield bundle[at + 2 : end]
            at = end


def size(origin):
    return int(archive.read(folder(origin) + "checkpoint").decode().split("\n")[1])


def lines(prefix):
    return [line for content in under(prefix) for line in content.decode().split("\n")[:-1]]


def record_envelopes(origin):
    stored = list(records(origin))
    envelopes = lines(folder(origin) + "signatures/")
    must(len(envelopes) == len(stored) == size(origin), "as many envelopes as records")
    for line, record in zip(envelopes, stored):
        envelope = Envelope.from_dict(json.loads(line))
        must(envelope.payload_type == RECORD_TYPE and envelope.payload == record, "the envelope is the record's")
        (kid,) = json.loads(record)["kids"]
        must(keys[kid]["purpose"] == "record" and keys[kid]["trail"] == origin, "a record key of this trail")
        envelope.verify([public(kid)], 1)
    changed = Envelope.from_dict(json.loads(line))
    changed.payload = changed.payload.replace(b'"v":1', b'"v":2')
    refused("a changed record", lambda: changed.verify([public(kid)], 1), VerificationError)
    return f"{len(envelopes)} envelopes, {keys[kid]['algorithm']}"


def manifest():
    envelope = Envelope.from_dict(json.loads(archive.read("manifest.dsse.json")))
    (kid,) = (kid for kid, key in keys.items() if key["purpose"] == "evidence")
    envelope.verify([public(kid)], 1)
    subjects = {subject["name"]: subject["digest"]["sha256"] for subject in json.loads(envelope.payload)["subject"]}
    digests = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names[:-1]}
    must(subjects == digests and names[-1] == "manifest.dsse.json", "the manifest names every file before it")
    return f"{len(digests)} files"


def probes():
    (genesis,) = (document for document in documents() if document["document"] == "countersign.genesis")
    for key in genesis["keys"]:
        signature = Signature(key["kid"], base64.b64decode(key["probe_signature"]).hex())
        probe = base64.b64decode(key["probe"])
        Envelope(probe, PROBE_TYPE, {key["kid"]: signature}).verify([public(key["kid"])], 1)
    must({key["kid"] for key in genesis["keys"]} == set(keys), "the genesis names every key")
    return f"{len(keys)} keys"


def documents():
    """The documents in JSON; the others are people's signatures."""
    contents = [archive.read(name) for name in names if name.startswith("documents/")]
    return [json.loads(content) for content in contents if content.startswith(b"{")]


def canonical():
    texts = [archive.read(name) for name in ("keys.json", "jwks.json", "manifest.dsse.json")]
    texts += [archive.read(name) for name in names if name.startswith("documents/")]
    texts = [text for text in texts if text.startswith(b"{")]
    for origin in origins:
        texts += records(origin)
        for kind in ("signatures/", "parts/"):
            stored = lines(folder(origin) + kind)
            texts += (line.encode() for line in stored)
            if kind == "parts/":
                texts += (base64.b64decode(part["data"]) for part in map(json.loads, stored) if is_ours(part))
    for text in texts:
        must(rfc8785.dumps(json.loads(text)) == text, f"not canonical: {text[:200]}")
    return f"{len(texts)} texts"


def is_ours(part):
    return part["name"] in ("facts", "subject", "review") and "data" in part


def commitments(origin):
    stored = [json.loads(record) for record in records(origin)]
    given = 0
    for part in map(json.loads, lines(folder(origin) + "parts/")):
        if part.get("withheld"):
            continue
        salt = base64.urlsafe_b64decode(part["salt"] + "=")
        head = b"\0".join([b"countersign/part/v1", part["name"].encode(), part["media_type"].encode(), salt])
        commitment = hashlib.sha256(head + base64.b64decode(part["data"])).hexdigest()
        must(stored[int(part["seq"])]["parts"][part["name"]] == commitment, f"part {part['name']} of {part['seq']}")
        given += 1
    must(given == sum(len(record.get("parts", {})) for record in stored), "every part is given")
    return f"{given} parts"


def links(origin):
    previous = None
    for seq, record in enumerate(records(origin)):
        content = json.loads(record)
        must(content["seq"] == str(seq) and content["trail"] == origin, f"place of record {seq}")
        must(previous is None or content["prev"] == previous, f"link of record {seq}")
        previous = hashlib.sha256(b"\0" + record).hexdigest()
    must(seq + 1 == size(origin), "as many records as the checkpoint says")
    return f"{seq + 1} records"


def whole():
    must(archive.testzip() is None, "every CRC")
    return f"{len(names)} entries"


origins = sorted({key["trail"] for key in keys.values() if "trail" in key})
check("Python zipfile: the bundle", whole)
for origin in origins:
    if any(key["purpose"] == "record" and key.get("trail") == origin for key in keys.values()):
        check(f"securesystemslib: records of {origin}", lambda: record_envelopes(origin))
check("securesystemslib: the manifest, and the digests in it", manifest)
check("securesystemslib: the probe of each key", probes)
check("rfc8785: canonical JSON of records, parts, envelopes and documents", canonical)
for origin in origins:
    check(f"hashlib: records of {origin} are linked", lambda: links(origin))
    if not origin.endswith("/admin"):
        check(f"hashlib: commitments of {origin}", lambda: commitments(origin))
finish()
