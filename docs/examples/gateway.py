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
import batch_proof, facts

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "proto"))
pb, services = grpc.protos_and_services("countersign/v1/signing.proto")


def connect(profile, genesis):
    """The signing service over mTLS, and by kid the keys that the pinned genesis names."""
    settings = tomllib.loads(profile.read_text())
    must(hashlib.sha256(genesis.read_bytes()).hexdigest() == settings["genesis"], "the genesis is the pinned one")
    files = [(profile.parent / settings[name]).read_bytes() for name in ("ca", "key", "certificate")]
    channel = grpc.secure_channel(settings["endpoint"].removeprefix("https://"), grpc.ssl_channel_credentials(*files),
                                  options=[("grpc.max_receive_message_length", 64 << 20)])
    return services.SigningServiceStub(channel), {key["kid"]: key for key in json.loads(genesis.read_bytes())["keys"]}


def decision(text):
    """An event. Its id begins with the time, so that ids ascend."""
    said = {"team": "docs", "model": {"provider": "example", "name": "example-1"}, "attributes": {"lang": "en"},
            "tokens": {"prompt": 12, "completion": 0}}
    return {"event_id": f"{time.time_ns():x}-{uuid.uuid4()}", "type": "llm.completion", "facts": said,
            "category": "CATEGORY_NORMAL", "decision": "DECISION_ALLOW", "result": "RESULT_DELIVERED",
            "request": {"media_type": "text/plain", "data": text.encode()}}


def check(keys, sent, answer):
    """The record, once all that the answer claims was checked against what was sent."""
    signed, record = answer.signed, json.loads(answer.signed.record)
    event, request = sent.event, sent.event.request
    enums = {name: word(event, name) for name in ("category", "decision", "result")}
    salts = {salt.part: salt.salt for salt in signed.salts}
    parts = {"facts": commitment("facts", "application/json", salts["facts"], rfc8785.dumps(facts.plain(event.facts))),
             "request": commitment("request", request.media_type, salts["request"], request.data)}
    expected = {"trail": sent.trail, "seq": str(signed.seq), "event_id": event.event_id, "type": event.type}
    must(record == record | expected | enums | {"parts": parts}, "the record is what was sent")
    must(signed.leaf_hash == hashlib.sha256(b"\0" + signed.record).digest(), "the leaf hash")
    key = keys[record["kids"][0]]
    must(key["trail"] == sent.trail, "the key is one of this trail")
    if key["purpose"] == "record":  # record mode: a signature over the record, DSSE
        message = b"DSSEv1 42 application/vnd.countersign.record.v1+json %d " % len(signed.record) + signed.record
        signature = signed.signature
    else:  # batch mode: one over the checkpoint of a tree that has the record
        message, signature = batch_proof.signed_checkpoint(sent.trail, signed.seq, signed.leaf_hash, answer.proof)
    public = serialization.load_der_public_key(base64.b64decode(key["spki"]))
    public.verify(signature, message, *([ec.ECDSA(hashes.SHA256())] if key["algorithm"] == "ecdsa-p256" else []))
    return record


def word(event, name):
    """An enumeration's value as the record has it."""
    value = event.DESCRIPTOR.fields_by_name[name].enum_type.values_by_number[getattr(event, name)]
    return value.name.removeprefix(f"{name}_".upper()).lower()


def commitment(name, media_type, salt, content):
    head = f"countersign/part/v1\0{name}\0{media_type}\0".encode()
    return hashlib.sha256(head + salt + content).hexdigest()


def must(holds, what):
    if not holds:
        raise ValueError(f"does not hold: {what}")


if __name__ == "__main__":
    service, keys = connect(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
    request = pb.SignRequest(trail=sys.argv[3], event=decision("Is the deductible 1,472 €? 保险"))
    record = check(keys, request, service.Sign(request, timeout=10))  # a failed call is safe to repeat as it is
    print(f"{record['trail']}: record {record['seq']} is signed, and is what was sent")
