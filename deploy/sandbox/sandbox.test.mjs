// node --test sandbox.test.mjs: starts its own sandboxes on free ports and proves each behaviour that the README lists.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';

const servers = [];
async function start(...args) {
  const child = spawn(process.execPath, [new URL('server.mjs', import.meta.url).pathname, '--port', '0', ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  servers.push(child);
  const line = await new Promise((resolve, reject) => { child.stdout.once('data', (d) => resolve(d.toString())); child.once('exit', () => reject(new Error('sandbox died'))); });
  const { base } = JSON.parse(line);
  const s = { base, auth: {} };
  s.call = async (method, path, body, headers = {}) => {
    const raw = typeof body === 'string' || body === undefined;
    const res = await fetch(base + path, { method, body: raw ? body : JSON.stringify(body), headers: { 'Content-Type': 'application/fhir+json', ...s.auth, ...headers } });
    const text = await res.text();
    let json; try { json = JSON.parse(text); } catch { json = text; }
    return { status: res.status, body: json, headers: res.headers };
  };
  s.token = async (id = 'sandbox-client', secret = 'sandbox-secret') => {
    const res = await s.call('POST', '/oauth2/token', `grant_type=client_credentials&client_id=${id}&client_secret=${secret}`, { 'Content-Type': 'application/x-www-form-urlencoded' });
    if (res.status === 200) s.auth = { Authorization: 'Bearer ' + res.body.access_token };
    return res;
  };
  s.tx = (entry, type = 'transaction', headers = {}) => s.call('POST', '/fhir/R4', { resourceType: 'Bundle', type, entry }, headers);
  s.stats = async (deep) => (await s.call('GET', '/_stats' + (deep ? '?deep' : ''))).body;
  s.faults = (f) => s.call('POST', '/_faults', f);
  await s.token();
  return s;
}
after(() => servers.forEach((c) => c.kill()));

const SYS = 'http://hospital.example/mrn', run = randomUUID().slice(0, 8);
const mrn = (n) => `${run}-${n}`;
const patient = (n, more) => ({ resourceType: 'Patient', identifier: [{ system: SYS, value: mrn(n) }], name: [{ family: 'Doe' }], ...more });
const obs = (reference, more) => ({ resourceType: 'Observation', status: 'final', code: { text: 'x' }, subject: { reference }, valueString: '1', ...more });
const urn = () => 'urn:uuid:' + randomUUID();
const query = (n) => `identifier=${SYS}|${mrn(n)}`;
const ccreate = (n, fullUrl, more) => ({ fullUrl, resource: patient(n, more), request: { method: 'POST', url: 'Patient', ifNoneExist: query(n) } });
const cput = (n, fullUrl, more) => ({ fullUrl, resource: patient(n, more), request: { method: 'PUT', url: 'Patient?' + query(n) } });
const post = (resource, fullUrl) => ({ fullUrl, resource, request: { method: 'POST', url: resource.resourceType } });
const statuses = (r) => r.body.entry.map((e) => e.response.status);
const text = (r) => r.body.issue[0].details.text;

describe('one sandbox', () => {
  let s;
  before(async () => { s = await start(); });
  const count = async (n) => (await s.call('GET', `/fhir/R4/Patient?${query(n)}&_total=accurate`)).body.total;
  const ok = (r, status) => { assert.equal(r.status, status, JSON.stringify(r.body)); return r; };

  test('healthcheck and metadata need no token', async () => {
    const anonymous = { Authorization: '' };
    ok(await s.call('GET', '/healthcheck', undefined, anonymous), 200);
    assert.equal(ok(await s.call('GET', '/fhir/R4/metadata', undefined, anonymous), 200).body.resourceType, 'CapabilityStatement');
  });
  test('token errors, 401 without, with a wrong and with a revoked token', async () => {
    assert.equal(ok(await s.token('nobody'), 400).body.error_description, 'Invalid client');
    assert.equal(ok(await s.token('sandbox-client', 'x'), 400).body.error_description, 'Invalid secret');
    for (const Authorization of ['', 'Bearer x']) assert.equal(ok(await s.call('GET', '/fhir/R4/Patient', undefined, { Authorization }), 401).body.id, 'unauthorized');
    ok(await s.call('POST', '/_tokens/revoke'), 200);
    ok(await s.call('GET', '/fhir/R4/Patient'), 401);
    ok(await s.token(), 200);
    ok(await s.call('GET', '/fhir/R4/Patient'), 200);
    ok(await s.call('GET', '/fhir/R4/Patient', undefined, { Authorization: 'Basic ' + btoa('sandbox-client:sandbox-secret') }), 200);
  });
  test('create, read, update, no-op update, If-Match, history, vread, delete, gone', async () => {
    const c = ok(await s.call('POST', '/fhir/R4/Patient', patient('crud')), 201), id = c.body.id;
    assert.equal(c.headers.get('location'), `${s.base}/fhir/R4/Patient/${id}`);
    assert.equal(c.headers.get('etag'), `W/"${c.body.meta.versionId}"`);
    const same = ok(await s.call('PUT', '/fhir/R4/Patient/' + id, { ...patient('crud'), id }), 200);
    assert.equal(same.body.meta.versionId, c.body.meta.versionId);
    ok(await s.call('PUT', '/fhir/R4/Patient/' + id, { ...patient('crud'), id, gender: 'male' }, { 'If-Match': 'W/"old"' }), 412);
    ok(await s.call('PUT', '/fhir/R4/Patient/' + id, { ...patient('crud'), id, gender: 'male' }, { 'If-Match': `W/"${c.body.meta.versionId}"` }), 200);
    for (let i = 0; i < 2; i++) { // twice: the npm repository would flip the order every time
      const h = ok(await s.call('GET', `/fhir/R4/Patient/${id}/_history`), 200).body;
      assert.deepEqual(h.entry.map((e) => e.resource.gender), ['male', undefined]);
    }
    ok(await s.call('GET', `/fhir/R4/Patient/${id}/_history/${c.body.meta.versionId}`), 200);
    ok(await s.call('DELETE', '/fhir/R4/Patient/' + id), 200);
    ok(await s.call('GET', '/fhir/R4/Patient/' + id), 410);
    assert.equal(await count('crud'), 0);
    ok(await s.call('GET', '/fhir/R4/Patient/' + randomUUID()), 404);
  });
  test('PUT with an id the server does not know is 404; a client id in POST is ignored', async () => {
    const id = randomUUID();
    ok(await s.call('PUT', '/fhir/R4/Patient/' + id, { ...patient('own'), id }), 404);
    assert.notEqual(ok(await s.call('POST', '/fhir/R4/Patient', { ...patient('own'), id }), 201).body.id, id);
  });
  test('strict validation', async () => {
    const bad = async (r, expression) => assert.equal(ok(await s.call('POST', '/fhir/R4/' + r.resourceType, r), 400).body.issue[0].expression[0], expression);
    await bad(patient('v', { foo: 1 }), 'Patient.foo');
    await bad(patient('v', { birthDate: '19800101' }), 'Patient.birthDate');
    await bad(patient('v', { gender: null }), 'Patient.gender');
    await bad({ resourceType: 'Observation', code: { text: 'x' } }, 'Observation.status');
    await bad(obs('Patient/x', { dataAbsentReason: { text: 'u' } }), 'Observation'); // invariant obs-6
    ok(await s.call('POST', '/fhir/R4/Patient', patient('v', { gender: 'X' })), 201); // bindings are not checked
    ok(await s.call('POST', '/fhir/R4/Observation', obs('Patient/' + randomUUID())), 201); // nor are references
    ok(await s.call('POST', '/fhir/R4/Patient', '{"resourceType":'), 400);
  });
  test('conditional create: 201, 200, 412', async () => {
    const h = { 'If-None-Exist': query('cc') };
    ok(await s.call('POST', '/fhir/R4/Patient', patient('cc'), h), 201);
    ok(await s.call('POST', '/fhir/R4/Patient', patient('cc'), h), 200);
    ok(await s.call('POST', '/fhir/R4/Patient', patient('cc')), 201);
    assert.equal(ok(await s.call('POST', '/fhir/R4/Patient', patient('cc'), h), 412).body.id, 'multiple-matches');
  });
  test('conditional update: 201, 200, 412, and 400 for an own id', async () => {
    const put = (more) => s.call('PUT', '/fhir/R4/Patient?' + query('cu'), patient('cu', more));
    ok(await put({ id: randomUUID() }), 400);
    ok(await put(), 201);
    ok(await put({ gender: 'male' }), 200);
    ok(await put({ id: randomUUID() }), 400);
    ok(await s.call('POST', '/fhir/R4/Patient', patient('cu')), 201);
    ok(await put(), 412);
  });
  test('conditional references: one match is replaced, none and many are 400', async () => {
    ok(await s.call('POST', '/fhir/R4/Patient', patient('cr')), 201);
    const r = ok(await s.call('POST', '/fhir/R4/Observation', obs('Patient?' + query('cr'))), 201);
    assert.match(r.body.subject.reference, /^Patient\/[0-9a-f-]{36}$/);
    assert.match(text(ok(await s.call('POST', '/fhir/R4/Observation', obs('Patient?' + query('none'))), 400)), /did not match any/);
    ok(await s.call('POST', '/fhir/R4/Patient', patient('cr')), 201);
    assert.match(text(ok(await s.call('POST', '/fhir/R4/Observation', obs('Patient?' + query('cr'))), 400)), /matched multiple/);
  });
  test('search: exact case, comma lists, _count, _total, paging, unknown parameter', async () => {
    for (const n of ['s1', 's2']) ok(await s.call('POST', '/fhir/R4/Patient', patient(n)), 201);
    const find = async (q) => ok(await s.call('GET', '/fhir/R4/Patient?' + q), 200).body;
    assert.equal((await find(query('s1'))).entry.length, 1);
    assert.equal((await find(query('s1').replace(run, run.toUpperCase() + 'X'))).entry, undefined);
    assert.equal((await find(`identifier=${mrn('s1')}`)).entry.length, 1);
    const page = await find(`${query('s1')},${SYS}|${mrn('s2')}&_count=1&_total=accurate`);
    assert.equal(page.entry.length, 1);
    assert.equal(page.total, 2);
    const next = page.link.find((l) => l.relation === 'next').url.slice(s.base.length);
    assert.notEqual((await s.call('GET', next)).body.entry[0].resource.id, page.entry[0].resource.id);
    assert.equal(text(ok(await s.call('GET', '/fhir/R4/Patient?foo=1'), 400)), 'Unknown search parameter: foo');
    ok(await s.call('GET', '/fhir/R4/Foo'), 400);
  });
  test('transaction: urn:uuid resolution in any order, replay finds the patient again', async () => {
    const f = urn(), r = ok(await s.tx([post(obs(f)), ccreate('t1', f)]), 200);
    assert.deepEqual(statuses(r), ['201', '201']);
    assert.equal(r.body.entry[0].resource.subject.reference, r.body.entry[1].response.location);
    const g = urn(), again = ok(await s.tx([ccreate('t1', g), post(obs(g))]), 200);
    assert.deepEqual(statuses(again), ['200', '201']);
    assert.equal(again.body.entry[1].resource.subject.reference, r.body.entry[1].response.location);
    assert.equal(await count('t1'), 1);
  });
  test('transaction is atomic, batch is not', async () => {
    const bad = post({ resourceType: 'Observation', status: 'final' });
    ok(await s.tx([cput('u0', urn())]), 200);
    ok(await s.tx([cput('u0', urn(), { gender: 'male' }), ccreate('a1', urn()), bad]), 400);
    assert.equal(await count('a1'), 0);
    const kept = (await s.call('GET', '/fhir/R4/Patient?' + query('u0'))).body.entry[0].resource;
    assert.equal(kept.gender, undefined);
    assert.equal((await s.call('GET', `/fhir/R4/Patient/${kept.id}/_history`)).body.total, 1);
    assert.deepEqual(statuses(ok(await s.tx([ccreate('a2', urn()), bad], 'batch'), 200)), ['201', '400']);
    assert.equal(await count('a2'), 1);
  });
  test('transaction limits: 8 entries with a conditional operation, 50 updates', async () => {
    const many = (n) => Array.from({ length: n }, () => post(obs('Patient/x')));
    assert.match(text(ok(await s.tx([ccreate('l1', urn()), ...many(8)]), 400)), /strict isolation/);
    ok(await s.tx([ccreate('l1', urn()), ...many(7)]), 200);
    ok(await s.tx(many(100)), 200);
    const put = () => { const id = randomUUID(); return { resource: { ...patient('l2'), id }, request: { method: 'PUT', url: 'Patient/' + id } }; };
    assert.match(text(ok(await s.tx(Array.from({ length: 51 }, put)), 400)), /more update operations/);
  });
  test('conditional update in a transaction: create, update, many = 400, twice the same = 400', async () => {
    assert.deepEqual(statuses(ok(await s.tx([cput('p1', urn())]), 200)), ['201']);
    assert.deepEqual(statuses(ok(await s.tx([cput('p1', urn(), { gender: 'male' })]), 200)), ['200']);
    assert.match(text(ok(await s.tx([cput('p1', urn()), cput('p1', urn())]), 400)), /Duplicate resource identity/);
    ok(await s.call('POST', '/fhir/R4/Patient', patient('p1')), 201);
    assert.match(text(ok(await s.tx([cput('p1', urn())]), 400)), /matched multiple/);
    ok(await s.tx([ccreate('p1', urn())]), 412);
  });
  test('a conditional reference finds a resource of its own transaction', async () => {
    const r = ok(await s.tx([ccreate('own1', urn()), post(obs('Patient?' + query('own1')))]), 200);
    assert.equal(r.body.entry[1].resource.subject.reference, r.body.entry[0].response.location);
  });
  test('body limit 413, gzip bodies, async batch, Binary', async () => {
    const big = { resourceType: 'Binary', contentType: 'text/plain', data: 'A'.repeat(1_100_000) };
    ok(await s.call('POST', '/fhir/R4/Binary', big), 413);
    const zipped = await fetch(s.base + '/fhir/R4/Patient', { method: 'POST', body: gzipSync(JSON.stringify(patient('gz'))), headers: { 'Content-Type': 'application/fhir+json', 'Content-Encoding': 'gzip', ...s.auth } });
    assert.equal(zipped.status, 201);
    const job = ok(await s.tx([post(patient('job'))], 'batch', { Prefer: 'respond-async' }), 202);
    const poll = () => s.call('GET', job.headers.get('content-location').slice(s.base.length));
    ok(await poll(), 202);
    await new Promise((r) => setTimeout(r, 400));
    ok(await poll(), 200);
    assert.equal(await count('job'), 1);
    ok(await s.tx([post(patient('job'))], 'transaction', { Prefer: 'respond-async' }), 400);
    const pdf = ok(await s.call('POST', '/fhir/R4/Binary', '%PDF-1.4', { 'Content-Type': 'application/pdf' }), 201);
    assert.equal((await s.call('GET', '/fhir/R4/Binary/' + pdf.body.id)).body, '%PDF-1.4');
  });
  test('_stats counts resources, duplicates by identifier and dangling references; _dump lists', async () => {
    for (let i = 0; i < 2; i++) ok(await s.call('POST', '/fhir/R4/Patient', patient('twice')), 201);
    const stats = await s.stats(true);
    assert.ok(stats.resources.Patient > 1 && stats.requests > 10 && stats.byStatus[201] > 1 && stats.bundles > 1);
    assert.deepEqual(stats.duplicates.Patient.find((d) => d.identifier === `${SYS}|${mrn('twice')}`), { identifier: `${SYS}|${mrn('twice')}`, count: 2 });
    assert.ok(stats.danglingReferences.some((d) => d.includes('Observation.subject -> Patient/x')));
    assert.ok((await (await fetch(s.base + '/_dump?type=Patient')).text()).split('\n').length > 2);
  });
  test('faults: status with Retry-After, rate, count, HTML, delay, dropped, lost after commit, truncated, on the token', async () => {
    const p = (n) => s.call('POST', '/fhir/R4/Patient', patient(n));
    for (const status of [429, 500, 503, 409]) {
      await s.faults({ status, retryAfter: 1, count: 1 });
      const r = ok(await p('f'), status);
      assert.equal(r.headers.get('retry-after'), '1');
      assert.equal(r.body.resourceType, 'OperationOutcome');
      ok(await p('f'), 201); // count: 1 is used up
    }
    await s.faults({ status: 502, html: true, count: 1 });
    assert.match(ok(await p('f'), 502).body, /<html>/);
    await s.faults({ status: 503, rate: 0.5 });
    const seen = new Set();
    for (let i = 0; i < 40; i++) seen.add((await p('rate')).status);
    assert.deepEqual([...seen].sort(), [201, 503]);
    await s.faults({ delayMs: 200, count: 1 });
    const t = Date.now();
    ok(await p('f'), 201);
    assert.ok(Date.now() - t >= 200);
    await s.faults({ dropConnection: true, count: 1 });
    await assert.rejects(p('dropped'));
    assert.equal(await count('dropped'), 0);
    await s.faults({ dropConnection: true, afterCommit: true, method: 'POST', count: 1 });
    await assert.rejects(p('committed'));
    assert.equal(await count('committed'), 1);
    await s.faults({ status: 504, afterCommit: true, method: 'POST', count: 1 });
    ok(await p('committed504'), 504);
    assert.equal(await count('committed504'), 1);
    await s.faults({ truncate: true, method: 'POST', count: 1 });
    await assert.rejects(p('cut'));
    assert.equal(await count('cut'), 1);
    await s.faults({ status: 500, target: 'token', count: 1 });
    ok(await s.token(), 500);
    ok(await s.call('DELETE', '/_faults'), 200);
    ok(await s.token(), 200);
    assert.ok((await s.stats()).committedButUnanswered >= 3);
  });
  test('a fault may close the connection first and commit afterwards', async () => {
    await s.faults({ dropConnection: true, commitAfterMs: 150, method: 'POST', count: 1 });
    await assert.rejects(s.call('POST', '/fhir/R4/Patient', patient('late')));
    assert.equal(await count('late'), 0);
    assert.equal((await s.stats()).late, 1);
    await new Promise((r) => setTimeout(r, 250));
    assert.equal(await count('late'), 1);
    assert.equal((await s.stats()).late, 0);
  });
  test('a resource is found by its tag; quota points are counted without a limit too', async () => {
    const tag = [{ system: 'urn:interlock:message', code: 'i1/acme/7' }];
    const before = (await s.stats()).points;
    ok(await s.call('POST', '/fhir/R4/Patient', patient('tagged', { meta: { tag } })), 201);
    const found = ok(await s.call('GET', '/fhir/R4/Patient?_tag=' + encodeURIComponent('urn:interlock:message|i1/acme/7')), 200).body;
    assert.equal(found.entry.length, 1);
    assert.equal(ok(await s.call('GET', '/fhir/R4/Patient?_tag=urn:interlock:message|i1/acme/8'), 200).body.entry, undefined);
    assert.equal((await s.stats()).points - before, 140);
  });
  test('a 429 fault tells the seconds to wait as Medplum does, a token fault answers in the body that it is given', async () => {
    await s.faults([{ status: 429, resetSeconds: 2, count: 1 }, { status: 401, target: 'token', count: 1, body: { error: 'invalid_client' } }]);
    assert.match(ok(await s.call('GET', '/fhir/R4/Patient'), 429).headers.get('ratelimit'), /"fhirInteractions";r=0;t=2/);
    assert.deepEqual(ok(await s.token(), 401).body, { error: 'invalid_client' });
    ok(await s.token(), 200);
  });
  test('_config changes options at run time, _reset restores those of the start', async () => {
    ok(await s.call('POST', '/_config', { transactions: 'off' }), 200);
    const bad = post({ resourceType: 'Observation', status: 'final' });
    ok(await s.tx([bad]), 200);
    ok(await s.call('POST', '/_config', { port: 1 }), 400);
    ok(await s.call('POST', '/_reset'), 200);
    ok(await s.tx([bad]), 400);
  });
  test('_reset empties everything', async () => {
    ok(await s.call('POST', '/_reset'), 200);
    assert.deepEqual((await s.stats()).resources, {});
  });
});

test('tokens expire: 401, a new token works', async () => {
  const s = await start('--token-ttl', '1', '--client-id', 'me', '--client-secret', 'pw');
  assert.equal((await s.token('me', 'pw')).body.expires_in, 1);
  assert.equal((await s.call('GET', '/fhir/R4/Patient')).status, 200);
  await new Promise((r) => setTimeout(r, 1100));
  const r = await s.call('GET', '/fhir/R4/Patient');
  assert.equal(r.status, 401);
  assert.equal(r.body.id, 'unauthorized');
  await s.token('me', 'pw');
  assert.equal((await s.call('GET', '/fhir/R4/Patient')).status, 200);
});
test('--transactions off: a transaction is run as a batch (a Medplum project without the feature)', async () => {
  const s = await start('--transactions', 'off');
  const r = await s.tx([ccreate('off', urn()), post({ resourceType: 'Observation', status: 'final' })]);
  assert.equal(r.status, 200);
  assert.equal(r.body.type, 'transaction-response');
  assert.deepEqual(statuses(r), ['201', '400']);
});
test('--check-references on refuses dangling references', async () => {
  const s = await start('--check-references', 'on');
  assert.equal((await s.call('POST', '/fhir/R4/Observation', obs('Patient/' + randomUUID()))).status, 400);
});
test('races: concurrent transactions that create one patient and point at it by urn:uuid leave dangling references; conditional references do not; 409 under contention', async () => {
  const s = await start('--latency-ms', '60');
  const all = (n, f) => Promise.all(Array.from({ length: n }, (_, i) => f(i)));
  const byUrn = await all(8, () => { const f = urn(); return s.tx([ccreate('race', f), post(obs(f))]); });
  assert.ok(byUrn.every((r) => r.status === 200));
  let stats = await s.stats(true);
  assert.equal(stats.resources.Patient, 1);
  assert.ok(stats.danglingReferences.length > 0);
  await s.call('POST', '/_reset');
  await all(8, () => s.tx([ccreate('race2', urn()), post(obs('Patient?' + query('race2')))]));
  stats = await s.stats(true);
  assert.deepEqual([stats.resources.Patient, stats.resources.Observation, stats.danglingReferences.length], [1, 8, 0]);
  const codes = new Set((await all(30, (i) => s.tx([cput('race2', urn(), { birthDate: `19${10 + i}-01-01` })]))).map((r) => r.status));
  assert.deepEqual([...codes].sort(), [200, 409]);
});
test('--fhir-quota: RateLimit header, then 429 without Retry-After', async () => {
  const s = await start('--fhir-quota', '250');
  const first = await s.call('POST', '/fhir/R4/Patient', patient('q'));
  assert.match(first.headers.get('ratelimit'), /^"fhirInteractions";r=150;t=\d+$/);
  await s.call('POST', '/fhir/R4/Patient', patient('q'));
  const over = await s.call('POST', '/fhir/R4/Patient', patient('q'));
  assert.equal(over.status, 429);
  assert.equal(over.headers.get('retry-after'), null);
  assert.equal(JSON.parse(over.body.issue[0].diagnostics).limit, 250);
});
