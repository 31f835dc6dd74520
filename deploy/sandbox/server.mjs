// An in-memory FHIR R4 server that answers as Medplum does. A test instrument: it keeps nothing.
// Medplum's own packages do routing, bundles, conditional operations, validation and search matching; store.mjs adds
// what their in-memory repository lacks, faults.mjs what goes wrong, and this file HTTP, OAuth2 and statistics.
import './globals.mjs';
import { randomUUID } from 'node:crypto';
import http from 'node:http';
import { gunzipSync } from 'node:zlib';
import { FhirRouter } from '@medplum/fhir-router';
import { FHIR_JSON, Faults, bites, commits, sendFault } from './faults.mjs';
import { changeOptions, readOptions } from './options.mjs';
import { Store, core, sleep } from './store.mjs';

const { badRequest } = core;
const TRACING = 'https://medplum.com/fhir/StructureDefinition/tracing';

const config = { base: '', ...readOptions() };
const asStarted = { ...config };
const store = new Store(config);
const router = new FhirRouter();
const faults = new Faults(config.seed);
const tokens = new Map(); // access token -> expiry, ms
const jobs = new Map(); // AsyncJob id -> resource
let late = 0; // requests whose connection is closed and whose work is still to come
let stats = newStats();

function newStats() {
  return {
    startedAt: new Date().toISOString(),
    requests: 0, byMethod: {}, byStatus: {}, byCall: {}, bundles: 0, bundleEntries: 0,
    tokensIssued: 0, faultsInjected: 0, committedButUnanswered: 0,
  };
}
const bump = (counts, key) => { counts[key] = (counts[key] ?? 0) + 1; };

// --- Answers

function send(res, status, body, headers = {}) {
  const data = body === undefined ? '' : typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
  res.writeHead(status, { 'Content-Type': 'application/json; charset=utf-8', 'Content-Length': Buffer.byteLength(data), ...headers });
  res.end(data);
}

function sendOutcome(res, outcome, headers = {}) {
  const extension = [{ url: TRACING, extension: [{ url: 'requestId', valueId: randomUUID() }, { url: 'traceId', valueId: randomUUID() }] }];
  send(res, core.getStatus(outcome), { ...outcome, extension }, { ...FHIR_JSON, ...headers });
}

// --- OAuth2: client credentials, as form fields or Basic; no refresh token

function checkAuth(req) {
  const [scheme, value] = (req.headers.authorization ?? '').split(' ');
  if (scheme === 'Basic') {
    return Buffer.from(value ?? '', 'base64').toString() === `${config.clientId}:${config.clientSecret}` ? undefined : core.unauthorized;
  }
  const expiry = scheme === 'Bearer' ? tokens.get(value) : undefined;
  return expiry && Date.now() < expiry ? undefined : core.unauthorized; // an expired token looks like a wrong one
}

function token(req, res, body) {
  const error = (description) => send(res, 400, { error: 'invalid_request', error_description: description });
  if (!(req.headers['content-type'] ?? '').startsWith('application/x-www-form-urlencoded')) {
    return send(res, 400, 'Unsupported content type', { 'Content-Type': 'text/html; charset=utf-8' });
  }
  const form = new URLSearchParams(body.toString());
  let id = form.get('client_id'), secret = form.get('client_secret');
  const [scheme, value] = (req.headers.authorization ?? '').split(' ');
  if (scheme === 'Basic') [id, secret] = Buffer.from(value ?? '', 'base64').toString().split(':');
  if (!form.get('grant_type')) return error('Missing grant_type');
  if (form.get('grant_type') !== 'client_credentials') return error('Unsupported grant_type');
  if (!id) return error('Missing client_id');
  if (!secret) return error('Missing client_secret');
  if (id !== config.clientId) return error('Invalid client');
  if (secret !== config.clientSecret) return error('Invalid secret');
  const access_token = `sandbox.${randomUUID()}`;
  tokens.set(access_token, Date.now() + config.tokenTtl * 1000);
  stats.tokensIssued++;
  const answer = { token_type: 'Bearer', expires_in: config.tokenTtl, scope: form.get('scope') ?? 'openid', access_token };
  return send(res, 200, { ...answer, project: { reference: 'Project/sandbox' }, profile: { reference: 'ClientApplication/sandbox' } },
    { 'Cache-Control': 'no-store, no-cache, must-revalidate' });
}

// --- FHIR

/** Medplum's router over a repository facade of the request's own, so that only it sees its transaction. */
async function route(request) {
  try {
    return await router.handleRequest(request, Object.create(store));
  } catch (err) {
    return [core.normalizeOperationOutcome(err)];
  }
}

/** `Prefer: respond-async`: 202 with a job to poll; the result bundle becomes a Binary. Batches only. */
function startJob(bundle) {
  if (!config.asyncBatch) return { outcome: badRequest('Async Batch feature not available') };
  if (bundle.type === 'transaction' && config.transactions) {
    return { outcome: badRequest('Transaction batches cannot be executed asynchronously', 'Bundle.type') };
  }
  const id = randomUUID(), location = `${config.base}/fhir/R4/job/${id}/status`;
  const job = { resourceType: 'AsyncJob', id, status: 'accepted', request: config.base + '/fhir/R4', requestTime: new Date().toISOString() };
  jobs.set(id, job);
  setTimeout(() => finishJob(job, bundle).catch((err) => Object.assign(job, { status: 'error', output: core.normalizeOperationOutcome(err) })), 100);
  return { outcome: core.accepted(location), headers: { 'Content-Location': location } };
}

async function finishJob(job, bundle) {
  const [outcome, result] = await route({ method: 'POST', url: '/', pathname: '', params: {}, query: {}, body: bundle, headers: {}, config: {} });
  const data = Buffer.from(JSON.stringify(result ?? outcome)).toString('base64');
  const binary = await Object.create(store).createResource({ resourceType: 'Binary', contentType: 'application/fhir+json', data });
  const parameter = [{ name: 'results', valueReference: { reference: 'Binary/' + binary.id } }];
  Object.assign(job, { status: 'completed', transactionTime: new Date().toISOString(), output: { resourceType: 'Parameters', parameter } });
}

function withQuota(answer) {
  if (!config.fhirQuota) return answer;
  const left = Math.max(0, config.fhirQuota - store.quota.points), seconds = Math.max(0, Math.ceil((store.quota.resetAt - Date.now()) / 1000));
  answer.headers = { ...answer.headers, RateLimit: `"fhirInteractions";r=${left};t=${seconds}` };
  return answer;
}

/** The request's body as Medplum's server reads it; throws a SyntaxError for bad JSON. */
function parseBody(raw, type, isRawBinary) {
  if (!raw.length) return {};
  if (/^application\/((fhir|json-patch|cloudevents)\+)?json/.test(type)) return JSON.parse(raw.toString());
  if (type.startsWith('application/x-www-form-urlencoded')) return Object.fromEntries(new URLSearchParams(raw.toString()));
  if (isRawBinary) return { resourceType: 'Binary', contentType: type, data: raw.toString('base64') };
  return {};
}

/** Runs one FHIR request through Medplum's router; answers {status, body, headers} or {outcome, headers}. */
async function fhir(req, raw) {
  const url = req.url.substring('/fhir/R4'.length), type = req.headers['content-type'] ?? '';
  const isRawBinary = url.startsWith('/Binary') && !/json/.test(type); // not limited by maxJsonSize
  if (raw.length > config.maxJsonSize && !isRawBinary) return { outcome: core.contentTooLarge('Request body too large') };
  let body;
  try {
    body = parseBody(raw, type, isRawBinary);
  } catch {
    return { outcome: badRequest('Content could not be parsed') };
  }
  if (req.method === 'POST' && /^\/?(\?|$)/.test(url)) {
    stats.bundles++;
    stats.bundleEntries += body.entry?.length ?? 0;
    if (req.headers.prefer === 'respond-async') return startJob(body);
  }
  const job = jobs.get(/^\/job\/([^/]+)\/status$/.exec(url)?.[1]);
  if (job) return { status: job.status === 'completed' ? 200 : 202, body: job, headers: FHIR_JSON };
  const [outcome, resource] = await route({
    method: req.method, url, pathname: '', params: {}, query: Object.create(null), body, headers: req.headers,
    config: { transactions: config.transactions },
  });
  return withQuota(resource ? present(req, outcome, resource, type) : { outcome });
}

function present(req, outcome, resource, type) {
  const headers = { ...FHIR_JSON }, version = resource.meta?.versionId;
  if (version) Object.assign(headers, { ETag: `W/"${version}"`, 'Last-Modified': new Date(resource.meta.lastUpdated).toUTCString() });
  if (core.isCreated(outcome)) headers.Location = `${config.base}/fhir/R4/${resource.resourceType}/${resource.id}`;
  if (req.method === 'GET' && version && req.headers['if-none-match']?.includes(version)) return { status: 304, headers };
  if (resource.resourceType === 'Binary') { // content is served raw unless FHIR JSON is asked for
    if (req.method === 'GET' && !req.headers.accept?.startsWith('application/fhir+json')) {
      return { status: 200, body: Buffer.from(resource.data ?? '', 'base64'), headers: { ...headers, 'Content-Type': resource.contentType } };
    }
    delete resource.data;
    if (!/json/.test(type)) resource.url = `${config.base}/storage/${resource.id}/${version}`;
  }
  return { status: core.getStatus(outcome), body: req.headers.prefer === 'return=minimal' ? undefined : resource, headers };
}

function metadata() {
  const resource = core.getResourceTypes().map((type) => (
    { type, versioning: 'versioned', conditionalCreate: true, conditionalUpdate: true, conditionalDelete: 'single', updateCreate: false }));
  return {
    resourceType: 'CapabilityStatement', status: 'active', date: stats.startedAt, kind: 'instance', fhirVersion: '4.0.1', format: ['json'],
    software: { name: 'interlock-sandbox', version: core.MEDPLUM_VERSION },
    implementation: { description: 'In-memory sandbox', url: config.base + '/fhir/R4' },
    rest: [{ mode: 'server', interaction: [{ code: 'batch' }, { code: 'transaction' }], resource }],
  };
}

// --- Control, for tests; no authorisation

function control(req, res, raw) {
  const url = new URL(req.url, 'http://sandbox'), json = () => JSON.parse(raw.toString() || '{}');
  const verbs = {
    'GET /_stats': () => ({ ...stats, late, ...store.report(url.searchParams.has('deep')), faults: faults.list }),
    'GET /_faults': () => faults.list,
    'POST /_faults': () => { faults.set(json()); return faults.list; },
    'DELETE /_faults': () => { faults.set([]); return faults.list; },
    'POST /_config': () => { changeOptions(config, json()); return publicConfig(); },
    'GET /_config': publicConfig,
    'POST /_tokens/revoke': () => { tokens.clear(); return {}; },
    'POST /_reset': reset,
  };
  const call = `${req.method} ${url.pathname}`;
  if (call === 'GET /_dump') return send(res, 200, store.dump(url.searchParams.get('type')), { 'Content-Type': 'application/ndjson' });
  if (!verbs[call]) return sendOutcome(res, core.notFound);
  try {
    return send(res, 200, verbs[call]());
  } catch (err) {
    return send(res, 400, { error: err.message });
  }
}

function publicConfig() {
  const { clientSecret, ...shown } = config;
  return shown;
}

function reset() {
  Object.assign(config, asStarted, { base: config.base });
  store.reset();
  faults.set([]);
  stats = newStats();
  jobs.clear();
  return {};
}

// --- One request

async function handle(req, res) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  let raw = Buffer.concat(chunks);
  if (req.headers['content-encoding'] === 'gzip') raw = gunzipSync(raw);
  if (req.url.startsWith('/_')) return control(req, res, raw);
  count(req, res);
  const fault = faults.draw(req);
  if (fault) stats.faultsInjected++;
  if (fault?.delayMs) await sleep(fault.delayMs);
  if (bites(fault) && !commits(fault)) return sendFault(res, fault);
  if (fault?.commitAfterMs !== undefined) return commitLater(req, res, raw, fault);
  return answer(req, res, raw, bites(fault) ? fault : undefined);
}

function count(req, res) {
  stats.requests++;
  bump(stats.byMethod, req.method);
  bump(stats.byCall, `${req.method} ${/^\/fhir\/R4\/?([A-Za-z]*)/.exec(req.url)?.[1] || req.url.split('?')[0]}`);
  res.once('close', () => bump(stats.byStatus, res.writableFinished ? res.statusCode : 'dropped'));
}

/** The client is gone before the work is done; the work is done all the same. */
async function commitLater(req, res, raw, fault) {
  const denied = checkAuth(req);
  late++;
  sendFault(res, fault);
  await sleep(fault.commitAfterMs);
  if (!denied) await fhir(req, raw);
  late--;
  stats.committedButUnanswered++;
}

async function answer(req, res, raw, fault) {
  if (req.url === '/healthcheck') {
    return send(res, 200, { ok: true, version: core.MEDPLUM_VERSION, platform: process.platform, runtime: process.version, postgres: true, redis: true });
  }
  if (req.url === '/oauth2/token' && req.method === 'POST') return token(req, res, raw);
  if (req.url === '/fhir/R4/metadata') return send(res, 200, metadata());
  if (!/^\/fhir\/R4([/?]|$)/.test(req.url)) return sendOutcome(res, core.notFound);
  const denied = checkAuth(req);
  if (denied) return sendOutcome(res, denied, { 'WWW-Authenticate': `${req.headers.authorization?.split(' ')[0] || 'Bearer'} realm="${config.base}/"` });
  const result = await fhir(req, raw);
  if (fault) { // the work is done, the answer gets lost
    stats.committedButUnanswered++;
    return sendFault(res, fault, result);
  }
  if (result.outcome) return sendOutcome(res, result.outcome, result.headers);
  return send(res, result.status, result.body, result.headers);
}

const server = http.createServer((req, res) => {
  handle(req, res).catch((err) => {
    if (!res.headersSent && !res.destroyed) sendOutcome(res, core.serverError(err));
  });
});
server.keepAliveTimeout = 90_000;
server.listen(config.port, config.host, () => {
  const base = (config.base = `http://${config.host}:${server.address().port}`);
  console.log(JSON.stringify({ ready: true, base, fhir: base + '/fhir/R4', token: base + '/oauth2/token', medplum: core.MEDPLUM_VERSION, transactions: config.transactions ? 'on' : 'off' }));
});
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
