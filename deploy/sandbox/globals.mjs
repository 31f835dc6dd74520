// Medplum's packages declare Node >= 22; these two globals are all that they miss on Node 20. Imported before them.
globalThis.WebSocket ??= class WebSocket {};
Promise.withResolvers ??= function withResolvers() {
  let resolve, reject;
  const promise = new Promise((a, b) => { resolve = a; reject = b; });
  return { promise, resolve, reject };
};
