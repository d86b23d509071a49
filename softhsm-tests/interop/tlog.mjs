// What @sigstore/verify, the verifier of Sigstore's transparency log, says of checkpoints and proofs.
//
//   node tlog.mjs FOLDER
//
// FOLDER holds the unpacked evidence (evidence/), receipts of the batch-mode trails as the gateway
// got them (receipts-batch-*.jsonl), and proofs as the daemon gave them (proofs/: N.proof, N.record).
//
// Rekor's log is a C2SP checkpoint over an RFC 6962 tree, as ours are. `Verifier` as a whole cannot
// be given our records, because it demands that a log's entry describes a Sigstore bundle (kind
// `dsse` or `hashedrekord`). So this calls the step of it that verifies the log, `verifyTLogInclusion`:
// signed note, checkpoint, inclusion of the entry's exact bytes. The keys go in by the package's own
// `toTrustMaterial`, made from the C2SP vkey lines.
import { createHash, createPublicKey } from 'node:crypto';
import { readdirSync, readFileSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import { toTrustMaterial, VerificationError } from '@sigstore/verify';
import { verifyTLogInclusion } from '@sigstore/verify/dist/tlog/index.js';
import { check, finish, must, refused } from './report.mjs';

const folder = process.argv[2];
const read = (...path) => readFileSync(join(folder, ...path));
const lines = (text) => text.toString().split('\n').slice(0, -1);
const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();

/** A log of Sigstore's trusted root from a C2SP vkey line: <name>+<key id>+<base64(type || key)>. */
function log(vkey) {
  const [name, id, ...rest] = vkey.split('+');
  const key = Buffer.from(rest.join('+'), 'base64');
  const ed25519 = key[0] === 1;
  must(ed25519 || key[0] === 2, `type of ${vkey}`);
  const rawBytes = ed25519
    ? createPublicKey({ format: 'jwk', key: { kty: 'OKP', crv: 'Ed25519', x: key.subarray(1).toString('base64url') } })
        .export({ format: 'der', type: 'spki' })
    : key.subarray(1);
  const keyId = ed25519 ? sha256(name, '\n', key) : sha256(rawBytes);
  must(keyId.subarray(0, 4).toString('hex') === id, `key id of ${vkey}`);
  return { baseUrl: name, hashAlgorithm: 1, logId: { keyId }, publicKey: { rawBytes, keyDetails: ed25519 ? 7 : 5 } };
}

const root = { tlogs: lines(read('evidence', 'vkeys.txt')).map(log) };
const { tlogs } = toTrustMaterial({ ...root, ctlogs: [], certificateAuthorities: [], timestampAuthorities: [] });

/** A record with its proof, as an entry of a Sigstore bundle. */
const entry = (record, index, hashes, checkpoint) => ({
  canonicalizedBody: record,
  inclusionProof: { logIndex: String(index), hashes, checkpoint: { envelope: checkpoint.toString() } },
});

/** The same from the text of a C2SP tlog-proof. */
function fromTlogProof(record, text) {
  const end = text.indexOf('\n\n');
  const [version, index, ...hashes] = text.slice(0, end).split('\n');
  must(version === 'c2sp.org/tlog-proof@v1' && index.startsWith('index '), `tlog-proof: ${text.slice(0, 60)}`);
  return entry(record, index.slice(6), hashes.map((hash) => Buffer.from(hash, 'base64')), text.slice(end + 2));
}

/** Every file of one kind of a trail, in order: names are 000, 001 … and the partial 008.p/73. */
function under(...path) {
  if (!existsSync(join(folder, ...path))) return [];
  return readdirSync(join(folder, ...path)).sort().map((name) => {
    const partial = name.endsWith('.p') ? readdirSync(join(folder, ...path, name)) : [];
    return read(...path, name, ...partial);
  });
}

/** The records in a C2SP entry bundle: 16-bit length, bytes. */
function* records(bundle) {
  for (let at = 0; at < bundle.length; ) {
    const end = at + 2 + bundle.readUInt16BE(at);
    yield bundle.subarray(at + 2, end);
    at = end;
  }
}

/** The tree over the hashes in the trail's C2SP tiles: hash of a range, path (RFC 9162 section 2.1.3). */
function tree(leaves) {
  const known = new Map();
  const hash = (low, high) => {
    if (high - low === 1) return leaves[low];
    const range = `${low}-${high}`;
    if (!known.has(range)) {
      known.set(range, sha256('\x01', hash(low, split(low, high)), hash(split(low, high), high)));
    }
    return known.get(range);
  };
  const split = (low, high) => low + 2 ** Math.floor(Math.log2(high - low - 1 || 1));
  const path = (index, low, high) => {
    if (high - low === 1) return [];
    const middle = split(low, high);
    return index < middle
      ? [...path(index, low, middle), hash(middle, high)]
      : [...path(index, middle, high), hash(low, middle)];
  };
  return { hash, path: (index) => path(index, 0, leaves.length) };
}

function everyRecord(trail) {
  const checkpoint = read('evidence', 'trails', trail, 'checkpoint').toString();
  const size = Number(checkpoint.split('\n')[1]);
  const bodies = under('evidence', 'trails', trail, 'tile', 'entries').flatMap((bundle) => [...records(bundle)]);
  const tiles = Buffer.concat(under('evidence', 'trails', trail, 'tile', '0'));
  const leaves = bodies.map((_, at) => tiles.subarray(32 * at, 32 * at + 32));
  must(bodies.length === size && tiles.length === 32 * size, 'tiles of the size of the checkpoint');
  const { hash, path } = tree(leaves);
  for (let [level, width] = [1, 256]; width <= size; level += 1, width *= 256) {
    const stored = Buffer.concat(under('evidence', 'trails', trail, 'tile', String(level)));
    const full = Array.from({ length: Math.floor(size / width) }, (_, at) => hash(width * at, width * (at + 1)));
    must(stored.equals(Buffer.concat(full)), `tiles of level ${level}`);
  }
  const verify = (body, at, under, logs = tlogs) => verifyTLogInclusion(entry(body, at, path(at), under), logs);
  bodies.forEach((body, at) => verify(body, at, checkpoint));

  const changed = Buffer.from(bodies[0]);
  changed[changed.length - 2] ^= 1;
  const larger = checkpoint.replace(`\n${size}\n`, `\n${size + 1}\n`);
  refused('a changed record', () => verify(changed, 0, checkpoint), VerificationError);
  refused('another place', () => verify(bodies[0], size - 1, checkpoint), VerificationError);
  refused('a changed checkpoint', () => verify(bodies[0], 0, larger), VerificationError);
  refused('no key', () => verify(bodies[0], 0, checkpoint, []), VerificationError);
  return `${size} records under their checkpoint`;
}

function receipts(file) {
  const stored = lines(read(file)).map((line) => JSON.parse(line));
  must(stored.length > 0, 'there are receipts');
  for (const { record, tlog_proof } of stored) {
    verifyTLogInclusion(fromTlogProof(Buffer.from(record, 'base64'), tlog_proof), tlogs);
  }
  return `${stored.length} receipts`;
}

function proofs() {
  const names = readdirSync(join(folder, 'proofs')).filter((name) => name.endsWith('.proof'));
  must(names.length > 0, 'there are proofs');
  for (const name of names) {
    const record = read('proofs', name.replace('.proof', '.record'));
    verifyTLogInclusion(fromTlogProof(record, read('proofs', name).toString()), tlogs);
  }
  return `${names.length} proofs`;
}

const trails = readdirSync(join(folder, 'evidence', 'trails')).sort();
must(trails.length === tlogs.length, 'a verifier key for each trail');
for (const trail of trails) {
  await check(`@sigstore/verify: tiles and checkpoint of ${trail.replaceAll('~', '/')}`, () => everyRecord(trail));
}
for (const file of readdirSync(folder).filter((name) => name.startsWith('receipts-batch-'))) {
  await check(`@sigstore/verify: tlog-proofs in ${file}`, () => receipts(file));
}
await check('@sigstore/verify: tlog-proofs that the daemon gives', proofs);
finish();
