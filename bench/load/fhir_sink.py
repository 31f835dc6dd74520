"""The instant sink: answers a FHIR client as Medplum would, at once, and keeps nothing but counts.

    python -m bench.load.fhir_sink        prints {"port": …, "ports": […]} when it listens

POST /oauth2/token · searches (GET, POST …/_search, or in a batch) find nothing · POST of one resource creates it, and
echoes it with id and version; with If-None-Exist the id is a function of the condition, so that a client sees the same
resource again · PUT · batch and transaction, each entry answered by its method · GET /_count gives the counts.
A transaction that holds `interlock-probe` is refused as a whole, as a server with real transactions does.

HTTP/1.1 with Content-Length and keep-alive only. JSON is searched for a few byte sequences, never parsed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
from typing import cast

import uvloop

from bench.load.ready import serve

TOKEN = b'{"token_type":"Bearer","access_token":"sink.sink.sink","expires_in":3600,"scope":"system/*.*"}'
EMPTY = b'{"resourceType":"Bundle","type":"searchset","total":0}'
REFUSED = (
    b'{"resourceType":"OperationOutcome","id":"invalid","issue":[{"severity":"error","code":"invalid",'
    b'"details":{"text":"Unknown search parameter: interlock-probe"}}]}'
)
NO_PATH = b'{"resourceType":"OperationOutcome","id":"not-found","issue":[{"severity":"error","code":"not-found"}]}'
REQUEST = b'"request":{"method":"'
BASE = b"/fhir/R4"


class Counts:
    def __init__(self) -> None:
        self.requests = self.tokens = self.searches = self.reads = self.creates = self.updates = 0
        self.batches = self.transactions = self.bytes = 0
        self.ids = 0

    def json(self) -> bytes:
        return json.dumps({name: value for name, value in vars(self).items() if name != "ids"}).encode()


class Sink(asyncio.Protocol):
    """One connection: requests one after the other."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.parts: list[bytes] = []
        self.head = b""
        self.missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        while data:
            if not self.head:
                data = b"".join((*self.parts, data))
                self.parts = []
                end = data.find(b"\r\n\r\n")
                if end < 0:
                    self.parts = [data]
                    return
                self.head, data = data[:end], data[end + 4 :]
                self.missing = content_length(self.head)
            take = data[: self.missing]
            data = data[self.missing :]
            self.parts.append(take)
            self.missing -= len(take)
            if self.missing:
                return
            head, self.head = self.head, b""
            body, self.parts = b"".join(self.parts), []
            self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        self.counts.requests += 1
        self.counts.bytes += len(body)
        method, path, _ = head.split(b" ", 2)
        status, extra, content = self.route(method, path, head, body)
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 %b\r\nContent-Type: application/fhir+json\r\n%bContent-Length: %d\r\n\r\n%b"
                % (status, extra, len(content), content)
            )

    def route(self, method: bytes, path: bytes, head: bytes, body: bytes) -> tuple[bytes, bytes, bytes]:
        """Status, further headers, body."""
        counts = self.counts
        if not path.startswith(BASE):
            if path == b"/oauth2/token":
                counts.tokens += 1
                return b"200 OK", b"", TOKEN
            return (b"200 OK", b"", counts.json()) if path == b"/_count" else (b"404 Not Found", b"", NO_PATH)
        place = path[len(BASE) :].strip(b"/")
        if method == b"POST":
            if not place:
                return self.bundle(body)
            if place.endswith(b"_search"):
                counts.searches += 1
                return b"200 OK", b"", EMPTY
            return self.create(place, head, body)
        if method == b"PUT":
            counts.updates += 1
            return b"200 OK", b'ETag: W/"1"\r\n', with_version(body)
        if b"/" in place.split(b"?")[0]:
            counts.reads += 1
            kind, _, name = place.partition(b"/")
            return b"200 OK", b'ETag: W/"1"\r\n', resource(kind, name)
        counts.searches += 1
        return b"200 OK", b"", EMPTY

    def create(self, kind: bytes, head: bytes, body: bytes) -> tuple[bytes, bytes, bytes]:
        self.counts.creates += 1
        name = self.name_for(head)
        extra = b'Location: %b/%b/%b/_history/1\r\nETag: W/"1"\r\n' % (BASE, kind, name)
        if body[:1] != b"{":
            return b"201 Created", extra, resource(kind, name)
        return b"201 Created", extra, b'{"id":"%b",%b' % (name, with_version(body)[1:])

    def name_for(self, head: bytes) -> bytes:
        """An id: the condition's, if there is one, else the next."""
        at = head.lower().find(b"\r\nif-none-exist:")
        if at < 0:
            self.counts.ids += 1
            return b"00000000-0000-4000-8000-%012x" % self.counts.ids
        condition = head[at + 16 : (head + b"\r\n").find(b"\r\n", at + 16)].strip()
        digest = hashlib.blake2b(condition, digest_size=16).hexdigest().encode()
        return b"%b-%b-4%b-8%b-%b" % (digest[:8], digest[8:12], digest[13:16], digest[17:20], digest[20:])

    def bundle(self, body: bytes) -> tuple[bytes, bytes, bytes]:
        counts = self.counts
        batch = b'"type":"batch"' in body
        if not batch and len(body) < 1000 and b"interlock-probe" in body:
            return b"400 Bad Request", b"", REFUSED
        if batch:
            counts.batches += 1
        else:
            counts.transactions += 1
        entries = [self.entry(part) for part in body.split(REQUEST)[1:]]
        kind = b"batch" if batch else b"transaction"
        return (
            b"200 OK",
            b"",
            b'{"resourceType":"Bundle","type":"%b-response","entry":[%b]}' % (kind, b",".join(entries)),
        )

    def entry(self, part: bytes) -> bytes:
        """The answer to one entry, from what follows `"request":{"method":"`."""
        counts = self.counts
        method = part[: part.find(b'"')]
        start = part.find(b'"url":"') + 7
        url = part[start : part.find(b'"', start)]
        if method == b"POST":
            counts.creates += 1
            counts.ids += 1
            place = b"%b/00000000-0000-4000-8000-%012x" % (url, counts.ids)
            return b'{"response":{"status":"201","location":"%b/_history/1","etag":"W/\\"1\\""}}' % place
        if method == b"PUT":
            counts.updates += 1
            return b'{"response":{"status":"200","location":"%b/_history/2","etag":"W/\\"2\\""}}' % url
        if b"?" in url:
            counts.searches += 1
            return b'{"resource":%b,"response":{"status":"200"}}' % EMPTY
        counts.reads += 1
        return b'{"response":{"status":"200","etag":"W/\\"1\\""}}'


def content_length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    end = lower.find(b"\r\n", at + 2)
    return int(lower[at + 17 : end if end > 0 else None])


def with_version(body: bytes) -> bytes:
    """A resource's JSON with `meta.versionId`."""
    if b'"meta":{' in body:
        return body.replace(b'"meta":{', b'"meta":{"versionId":"1",', 1).replace(b'"1",}', b'"1"}', 1)
    return b'{"meta":{"versionId":"1"},' + body[1:]


def resource(kind: bytes, name: bytes) -> bytes:
    return b'{"resourceType":"%b","id":"%b","meta":{"versionId":"1"}}' % (kind, name)


async def run(options: argparse.Namespace) -> None:
    counts = Counts()
    server = await asyncio.get_running_loop().create_server(lambda: Sink(counts), options.host, options.port)
    await serve({"ports": [server.sockets[0].getsockname()[1]]})
    print(counts.json().decode(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load.fhir_sink", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
