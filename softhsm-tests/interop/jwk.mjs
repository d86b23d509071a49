// What npm's jose says of the keys.
//
//   node jwk.mjs EVIDENCE-FOLDER
//
// Each kid is the RFC 7638 thumbprint of its key, and JWK, PEM and key file hold the same key.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { calculateJwkThumbprint, exportSPKI, importJWK } from 'jose';
import { check, finish, must } from './report.mjs';

const folder = process.argv[2];
const read = (...path) => readFileSync(join(folder, ...path), 'utf8');
const { keys } = JSON.parse(read('jwks.json'));

await check('jose: calculateJwkThumbprint gives the kid of each key', async () => {
  for (const key of keys) must((await calculateJwkThumbprint(key, 'sha256')) === key.kid, `kid ${key.kid}`);
  must(keys.length > 0, 'there are keys');
  return `${keys.length} keys`;
});

await check('jose: JWK, PEM and key file hold the same keys', async () => {
  const listed = JSON.parse(read('keys.json')).keys;
  must(listed.length === keys.length && readdirSync(join(folder, 'keys')).length === keys.length, 'as many everywhere');
  for (const [at, key] of keys.entries()) {
    const pem = await exportSPKI(await importJWK(key));
    must(pem.trim() === read('keys', `${key.kid}.pem`).trim(), `PEM of ${key.kid}`);
    must(listed[at].kid === key.kid && pem.replace(/-----.*?-----|\n/g, '') === listed[at].spki, `SPKI of ${key.kid}`);
  }
  return `${keys.length} keys`;
});
finish();
