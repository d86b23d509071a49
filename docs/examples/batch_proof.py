"""What proves an answer of a batch-mode trail: the record's place in the tree of a signed checkpoint.

Formats: docs/src/formats/checkpoints.md, docs/src/formats/proofs.md.
"""
import base64, hashlib


def signed_checkpoint(trail, seq, leaf_hash, proof):
    """Text and signature of the proof's checkpoint: to be verified with the trail's checkpoint key."""
    text, notes = proof.checkpoint.decode().split("\n\n")
    origin, size, root = text.split("\n")
    rest = iter(proof.hashes)
    proven = seq < int(size) and subtree(0, int(size), seq, leaf_hash, rest) == base64.b64decode(root)
    if origin != trail or not proven or list(rest):
        raise ValueError("does not hold: the record's place under the checkpoint")
    signature = next(line.split()[2] for line in notes.splitlines() if line.split()[1] == trail)
    return f"{text}\n".encode(), base64.b64decode(signature)[4:]  # the first four bytes are the key id


def subtree(low, high, seq, leaf_hash, rest):
    """Root of the records [low, high): the next hash of the proof, where ours is not among them (RFC 6962)."""
    if not low <= seq < high:
        return next(rest)
    if high - low == 1:
        return leaf_hash
    middle = low + (1 << ((high - low - 1).bit_length() - 1))
    left, right = subtree(low, middle, seq, leaf_hash, rest), subtree(middle, high, seq, leaf_hash, rest)
    return hashlib.sha256(b"\1" + left + right).digest()
