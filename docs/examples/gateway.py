"""A gateway in Python: signs a decision, and believes the answer as far as it can check it.

    pip install cryptography grpcio grpcio-tools rfc8785
    python docs/examples/gateway.py PROFILE GENESIS TRAIL

PROFILE is a connection profile of `countersign`; the fingerprint in it pins GENESIS, the document
that names every key. The stubs are made at run time from proto/. Formats: docs/src/formats.
"""
import base64, hashlib, json, pathlib, sys, time, tomllib, uuid
import grpc, rfc8785
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.json_format import MessageToDict

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "proto"))
pb, services = grpc.protos_and_services("countersign/v1/signing.proto")
event_pb = grpc.protos("countersign/v1/event.proto")


def connect(profile, genesis):
    """The signing service over mTLS, and by kid the keys that the pinned genesis names."""
    settings = tomllib.loads(profile.read_text())
    files = ((profile.parent / settings[name]).read_bytes() for name in ("ca", "key", "certificate"))
    must(sha256(genesis.read_bytes()).hex() == settings["genesis"], "the genesis is the pinned one")
    channel = grpc.secure_channel(settings["endpoint"].removeprefix("https://"), grpc.ssl_channel_credentials(*files))
    keys = json.loads(genesis.read_bytes())["keys"]
    return services.SigningServiceStub(channel), {key["kid"]: key for key in keys}


def check(keys, sent, answer):
    """The record, once all that the answer claims was checked against what was sent."""
    signed, event = answer.signed, sent.event
    record, salts = json.loads(signed.record), {salt.part: salt.salt for salt in signed.salts}
    must(record["trail"] == sent.trail and record["seq"] == str(signed.seq), "place in the trail")
    must(all(record[name] == getattr(event, name) for name in ("event_id", "type")), "event")
    for name, words in (("category", event_pb.Category), ("decision", event_pb.Decision), ("result", event_pb.Result)):
        must(f"{name}_{record[name]}".upper() == words.Name(getattr(event, name)), name)
    must(record["parts"] == {name: commitment(name, *part, salts[name]) for name, *part in parts(event)}, "parts")
    must(signed.leaf_hash == sha256(b"\0", signed.record), "leaf hash")
    key = keys[record["kids"][0]]
    must(key["trail"] == sent.trail, "a key of this trail")
    if key["purpose"] == "record":  # record mode: the record's own signature, DSSE
        encoding = b"DSSEv1 42 application/vnd.countersign.record.v1+json %d " % len(signed.record)
        verify(key, signed.signature, encoding + signed.record)
    else:  # batch mode: the record's place under a signed checkpoint
        text, notes = answer.proof.checkpoint.decode().split("\n\n")
        origin, size, root = text.split("\n")
        note = next(line.split()[2] for line in notes.splitlines() if line.split()[1] == origin == sent.trail)
        verify(key, base64.b64decode(note)[4:], f"{text}\n".encode())
        rest = iter(answer.proof.hashes)
        proven = subtree(0, int(size), {signed.seq: signed.leaf_hash}, rest)
        must(signed.seq < int(size) and proven == base64.b64decode(root) and not list(rest), "inclusion")
    return record


def parts(event):
    """Name, media type and content of the parts that this gateway fills, as the daemon writes them."""
    if event.HasField("facts"):
        facts = MessageToDict(event.facts, preserving_proto_field_name=True)  # leaves empty members out
        if "tokens" in facts:  # but numbers stand also when they are zero
            facts["tokens"] = {"prompt": "0", "completion": "0"} | facts["tokens"]
        yield "facts", "application/json", rfc8785.dumps(facts)
    for name in ("request", "response"):
        if event.HasField(name):
            yield name, getattr(event, name).media_type, getattr(event, name).data


def commitment(name, media_type, content, salt):
    return sha256(b"countersign/part/v1\0", name.encode(), b"\0", media_type.encode(), b"\0", salt, content).hex()


def subtree(low, high, leaves, rest):
    """Root of the records [low, high): those not among `leaves` are given by the next hash (RFC 6962)."""
    if not any(low <= seq < high for seq in leaves):
        return next(rest)
    if high - low == 1:
        return leaves[low]
    middle = low + (1 << ((high - low - 1).bit_length() - 1))
    return sha256(b"\1", subtree(low, middle, leaves, rest), subtree(middle, high, leaves, rest))


def verify(key, signature, message):
    public = serialization.load_der_public_key(base64.b64decode(key["spki"]))
    public.verify(signature, message, *([ec.ECDSA(hashes.SHA256())] if key["algorithm"] == "ecdsa-p256" else []))


def sha256(*pieces):
    return hashlib.sha256(b"".join(pieces)).digest()


def must(holds, what):
    if not holds:
        raise ValueError(f"does not hold: {what}")


def decision(text):
    """An event; its id begins with the time (hexadecimal milliseconds), so that ids ascend."""
    facts = event_pb.Facts(occurred_at=time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()), team="docs")
    facts.model.provider, facts.model.name, facts.tokens.prompt = "example", "example-1", len(text.split())
    return event_pb.Event(
        event_id=f"{time.time_ns() // 1_000_000:012x}-{uuid.uuid4().hex}", type="llm.completion",
        category="CATEGORY_NORMAL", decision="DECISION_ALLOW", result="RESULT_DELIVERED", facts=facts,
        request=event_pb.Content(media_type="text/plain", data=text.encode()))


if __name__ == "__main__":
    profile, genesis, trail = sys.argv[1:]
    service, keys = connect(pathlib.Path(profile), pathlib.Path(genesis))
    request = pb.SignRequest(trail=trail, event=decision("Is the deductible 1,472 €? 保险"))
    record = check(keys, request, service.Sign(request, timeout=10))  # a failed call is safe to repeat as it is
    print(f"{trail}: record {record['seq']} is signed, and is what was sent")
