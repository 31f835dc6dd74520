// A client that others wrote. `open` {peer, port, encoding, wait, tls} · `send` TEXT → what the peer read in the answer.

import { Hl7Message } from "@medplum/core";
import { Hl7Client } from "@medplum/hl7";
import Client, { Batch, Message } from "node-hl7-client";
import { obey, pem } from "./lines.mjs";

const HOST = "127.0.0.1";
const PATIENCE_MS = 10_000;

/** @medplum/hl7. wait: "first" = any answer ends the wait; "application" = a CA does not. */
function medplum({ port, encoding, wait }) {
  const client = new Hl7Client({ host: HOST, port, encoding, keepAlive: true });
  return async (text) => {
    const options = { returnAck: wait ?? "application", timeoutMs: PATIENCE_MS };
    const answer = await client.sendAndWait(Hl7Message.parse(text), options);
    const [header, msa] = [answer.getSegment("MSH"), answer.getSegment("MSA")];
    return [[msa.getField(1).toString(), msa.getField(2).toString(), header.getField(6).toString()]];
  };
}

/**
 * node-hl7-client. It connects again only where `connectionTimeout` is set, and a message that is given to it before it
 * is connected makes it open a second connection beside the first; so it is given none before.
 */
function nodeHl7({ port, encoding, version, wait, tls }) {
  const client = new Client({
    host: HOST, version: version ?? "2.5.1", tls: pem(tls), connectionTimeout: 60_000, retryLow: 20, retryHigh: 60,
    maxConnectionAttempts: 50,
  });
  const answers = [];
  let heard = () => {};
  let [connected, ready] = waiting();
  const connection = client.createConnection({ port, encoding }, (response) => {
    const message = response.getMessage();
    answers.push(["MSA.1", "MSA.2", "MSH.6"].map((path) => message.get(path).toString()));
    heard();
  });
  connection.on("connect", () => ready());
  connection.on("client.error", () => {
    [connected, ready] = waiting();
  });
  const wanted = wait === "both" ? 2 : 1;
  return async (text) => {
    await connected;
    answers.length = 0;
    const answered = new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error("no answer")), PATIENCE_MS);
      heard = () => answers.length >= wanted && (clearTimeout(late), resolve());
    });
    await connection.sendMessage(text.startsWith("BHS") ? new Batch({ text }) : new Message({ text }));
    await answered;
    return answers;
  };
}

function waiting() {
  let done;
  return [new Promise((resolve) => (done = resolve)), () => done()];
}

let send;
await obey({
  open: (options) => {
    send = { "@medplum/hl7": medplum, "node-hl7-client": nodeHl7 }[options.peer](options);
  },
  send: (text) => send(text),
});
