// A server that others wrote. `listen` {peer, port, encoding, enhanced, tls} → its port · `answer` CODE, of what comes from
// then on · `stop`. Each message that comes is told as ["received", TEXT], as the peer itself would print it.

import { once } from "node:events";
import { Hl7Server } from "@medplum/hl7";
import { Server } from "node-hl7-server";
import { obey, pem, tell } from "./lines.mjs";

let code = "AA";

async function medplum({ port, encoding, enhanced }) {
  const server = new Hl7Server((connection) => {
    connection.addEventListener("message", ({ message }) => {
      tell(["received", message.toString()]);
      connection.send(message.buildAck({ ackCode: code }));
    });
  });
  await server.start(port, encoding, enhanced ?? false);
  return [server.server, () => server.stop({ forceDrainTimeoutMs: 0 })];
}

async function nodeHl7({ port, encoding, tls }) {
  const mutual = tls && { ...pem(tls), requestCert: true };
  const server = new Server({ bindAddress: "127.0.0.1", tls: mutual ?? undefined });
  const inbound = server.createInbound({ port, encoding }, async (request, response) => {
    tell(["received", request.getMessage().toString()]);
    await response.sendResponse(code);
  });
  inbound.on("client.error", () => {}); // unheard, it would end the process
  await once(inbound, "listen");
  const stop = async () => {
    const closed = once(inbound._socket, "close"); // close() does not wait for it
    await inbound.close();
    await closed;
  };
  return [inbound._socket, stop];
}

let [server, stop] = [];
await obey({
  listen: async (options) => {
    [server, stop] = await { "@medplum/hl7": medplum, "node-hl7-server": nodeHl7 }[options.peer](options);
    return server.address().port;
  },
  answer: (wanted) => {
    code = wanted;
  },
  stop: () => stop(),
});
