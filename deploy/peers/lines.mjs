// How the tests drive a peer: commands come as lines of JSON on stdin, what happens goes out as lines on stdout.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

export const tell = (event) => process.stdout.write(JSON.stringify(event) + "\n");

/** Carry out each command, one after another; `commands` has a function for each. The process ends with stdin. */
export async function obey(commands) {
  for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    const [name, value] = JSON.parse(line);
    try {
      tell([name, (await commands[name](value)) ?? null]);
    } catch (error) {
      tell(["failed", String(error?.message ?? error)]);
    }
  }
  process.exit(0);
}

/** PEM files by name, as Node's tls wants them; undefined where there are none. */
export function pem(files) {
  return files ? Object.fromEntries(Object.entries(files).map(([name, path]) => [name, readFileSync(path)])) : undefined;
}
