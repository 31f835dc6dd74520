// Faults that a test switches on over HTTP: what to answer instead, or what to do to the connection.
//
// A fault is {status | dropConnection | truncate | delayMs, ...}; the first of the list that matches a request bites.
//   selectors  method, path (regular expression on the URL), target ("fhir" or "token"), rate, skip, count
//   when       before anything is done (default), afterCommit (done, answer lost), commitAfterMs (the connection is
//              closed at once, and the work is done that many milliseconds later)
import { core, asArray } from './store.mjs';

export const FHIR_JSON = { 'Content-Type': 'application/fhir+json; charset=utf-8' };

const MEDPLUM_OUTCOMES = {
  401: core.unauthorized,
  409: core.conflict('could not serialize access due to concurrent update', '40001'),
  412: core.preconditionFailed,
  429: core.tooManyRequests,
};

function outcomeOf(status) {
  return MEDPLUM_OUTCOMES[status] ?? {
    resourceType: 'OperationOutcome',
    issue: [{ severity: 'error', code: status >= 500 ? 'exception' : 'invalid', details: { text: `Injected fault ${status}` } }],
  };
}

/** A lottery that gives the same draws for the same seed. */
function lottery(seed) {
  let state = seed || Math.floor(Math.random() * 2 ** 31);
  return () => ((state = (state * 1103515245 + 12345) % 2 ** 31) / 2 ** 31);
}

export class Faults {
  constructor(seed) {
    this.list = [];
    this.random = lottery(seed);
  }

  set(list) {
    this.list = asArray(list);
  }

  /** The fault that bites this request, if any; its counters move. */
  draw(req) {
    return this.list.find((fault) => this.#matches(fault, req));
  }

  #matches(fault, req) {
    const wanted = fault.target === 'token' ? '/oauth2' : '/fhir';
    if (!req.url.startsWith(wanted) || (fault.method && fault.method !== req.method)) return false;
    if (fault.path && !new RegExp(fault.path).test(req.url)) return false;
    if (fault.count === 0 || (fault.skip > 0 && fault.skip--) || this.random() >= (fault.rate ?? 1)) return false;
    if (fault.count > 0) fault.count--;
    return true;
  }
}

/** Whether the fault replaces the answer; a bare delay does not. */
export const bites = (fault) => Boolean(fault && (fault.status || fault.dropConnection || fault.truncate));

/** Whether the request is to be carried out in spite of the fault. */
export const commits = (fault) => Boolean(fault.afterCommit || fault.truncate || fault.commitAfterMs !== undefined);

/** Answers with the fault. `answer` is what the request really came to, when it was carried out. */
export function sendFault(res, fault, answer) {
  if (fault.dropConnection) return res.socket?.destroy();
  if (fault.truncate && answer) return sendHalf(res, answer);
  const headers = { ...(fault.retryAfter === undefined ? {} : { 'Retry-After': String(fault.retryAfter) }) };
  if (fault.resetSeconds !== undefined) headers.RateLimit = `"requests";r=5999;t=60, "fhirInteractions";r=0;t=${fault.resetSeconds}`;
  const [type, body] = fault.html
    ? ['text/html', `<html><body><h1>${fault.status}</h1></body></html>`]
    : [FHIR_JSON['Content-Type'], JSON.stringify(fault.body ?? outcomeOf(fault.status))];
  res.writeHead(fault.status, { ...headers, 'Content-Type': type, 'Content-Length': Buffer.byteLength(body) });
  return res.end(body);
}

/** The head and half of the body, then a dead socket. */
function sendHalf(res, answer) {
  const text = JSON.stringify(answer.body ?? answer.outcome ?? {});
  res.writeHead(answer.status ?? core.getStatus(answer.outcome), { ...FHIR_JSON, ...answer.headers, 'Content-Length': Buffer.byteLength(text) });
  res.write(text.slice(0, text.length / 2), () => res.socket?.destroy());
}
