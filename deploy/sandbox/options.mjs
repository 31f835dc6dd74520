// What a sandbox can be started with, and what of it can be changed while it runs (POST /_config).
import { parseArgs } from 'node:util';

const DEFAULTS = {
  port: '8104', // 0 = a free one; the first line on stdout tells
  host: '127.0.0.1',
  'client-id': 'sandbox-client',
  'client-secret': 'sandbox-secret',
  'token-ttl': '3600', // seconds that an access token lives
  transactions: 'on', // project feature "transaction-bundles"; off (Medplum's default) = transactions run as batches
  'check-references': 'off', // Project.checkReferencesOnWrite
  'latency-ms': '5', // from a bundle's preprocessing to its database transaction: keeps Medplum's races visible
  conflicts: 'on', // concurrent writes of one resource may answer 409 after three tries, as with PostgreSQL
  'max-json-size': '1048576', // bytes; Medplum's maxJsonSize "1mb"
  'fhir-quota': '0', // FHIR interaction points in a window (Medplum: 50000 a minute); 0 = no limit
  'quota-window-ms': '60000',
  'async-batch': 'on', // project feature "async-batch"
  seed: '0', // of the fault lottery; 0 = random
};

const NUMBERS = new Set(['port', 'token-ttl', 'latency-ms', 'max-json-size', 'fhir-quota', 'quota-window-ms', 'seed']);
const SWITCHES = new Set(['transactions', 'check-references', 'conflicts', 'async-batch']);
const FIXED = new Set(['port', 'host', 'seed']);

const property = (name) => name.replaceAll(/-(.)/g, (_, c) => c.toUpperCase());
const typed = (name, text) => (NUMBERS.has(name) ? Number(text) : SWITCHES.has(name) ? text === 'on' || text === true : text);

/** Flags win over SANDBOX_… variables, these over the defaults. The result's properties are in camelCase. */
export function readOptions(args = process.argv.slice(2), env = process.env) {
  const { values } = parseArgs({ args, options: Object.fromEntries(Object.keys(DEFAULTS).map((name) => [name, { type: 'string' }])) });
  const text = (name) => values[name] ?? env['SANDBOX_' + name.replaceAll('-', '_').toUpperCase()] ?? DEFAULTS[name];
  return Object.fromEntries(Object.keys(DEFAULTS).map((name) => [property(name), typed(name, text(name))]));
}

/** Changes options of a running sandbox; throws with a sentence for a name that is unknown or fixed at the start. */
export function changeOptions(config, changes) {
  for (const [name, value] of Object.entries(changes)) {
    if (!(name in DEFAULTS) || FIXED.has(name)) throw new Error(`${name} cannot be changed while the sandbox runs`);
    config[property(name)] = typed(name, value);
  }
}
