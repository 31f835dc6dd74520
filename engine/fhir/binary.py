"""Large attachments go first, as raw Binary resources: a transaction's JSON may not be larger than about 1 MB.

A Binary has no identifier. What makes it findable is the attachment that points at it: it carries the SHA-1 and the
size of the body (Attachment.hash and .size, FHIR R4 section 2.24.0.1), so a repeated message finds its body stored
and takes over the url. Bodies uploaded lately are remembered too, for an attempt that failed after the upload.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.fhir.client import FhirClient, Spent
from engine.fhir.failure import Trouble
from engine.fhir.output import Output, Resource
from engine.ledger.outcome import Result

LARGEST_INLINE = 256 * 1024  # bytes of the body itself
REMEMBERED = 256
DEFAULT_TYPE = "application/octet-stream"

_SHORTEST = LARGEST_INLINE * 4 // 3  # characters of base64
_PLACES = frozenset(("presentedForm", "content", "sourceAttachment", "extension"))  # where `attachments` looks


@dataclass(slots=True)
class Body:
    """A body taken out of its attachment. encoded: as it stood there; size: bytes; hash: base64 of its SHA-1."""

    owner: Resource
    attachment: dict[str, Any]
    encoded: str
    hash: str
    size: int


class Bodies:
    """Stores the large bodies of outputs at one server."""

    def __init__(self, client: FhirClient) -> None:
        self._client = client
        self._stored: OrderedDict[str, str] = OrderedDict()

    async def store(self, body: Body, spent: Spent) -> None:
        """Make the attachment point at its body, uploading it unless it is known to be there."""
        if "url" in body.attachment:
            return
        url = self._stored.get(body.hash)
        if url is None:
            kind = body.attachment.get("contentType", DEFAULT_TYPE)
            url = await self._client.upload(kind, base64.b64decode(body.encoded), spent)
            self._stored[body.hash] = url
            while len(self._stored) > REMEMBERED:
                self._stored.popitem(last=False)
        body.attachment["url"] = url


def take_out(output: Output) -> list[Body]:
    """Take the large bodies out of the output's facts; `put_back` undoes it."""
    return [
        _take(entry.resource, attachment)
        for entry in output.entries
        if entry.role == "fact" and not _PLACES.isdisjoint(entry.resource)
        for attachment in attachments(entry.resource)
        if len(attachment.get("data") or "") > _SHORTEST
    ]


def put_back(bodies: list[Body]) -> None:
    for body in bodies:
        for name in ("url", "hash", "size"):
            body.attachment.pop(name, None)
        body.attachment["data"] = body.encoded


def adopt(existing: Resource, ours: Resource) -> None:
    """Where ours has the same bodies as the existing resource, let it point at the same place.

    Medplum answers with signed, short-lived addresses, so urls alone are never the same.
    """
    theirs = {
        (attachment["hash"], attachment.get("size")): attachment["url"]
        for attachment in attachments(existing)
        if "hash" in attachment and "url" in attachment
    }
    for attachment in attachments(ours) if theirs else ():
        url = theirs.get((attachment.get("hash"), attachment.get("size")))
        if url is not None and "data" not in attachment:
            attachment["url"] = url


def attachments(resource: Resource) -> Iterator[dict[str, Any]]:
    """The attachments of a resource: of reports, documents, media, consents, and in extensions."""
    yield from resource.get("presentedForm") or ()
    content = resource.get("content")
    if isinstance(content, dict):
        yield content
    elif isinstance(content, list):
        yield from (part["attachment"] for part in content if "attachment" in part)
    if "sourceAttachment" in resource:
        yield resource["sourceAttachment"]
    for extension in resource.get("extension") or ():
        if "valueAttachment" in extension:
            yield extension["valueAttachment"]


def _take(owner: Resource, attachment: dict[str, Any]) -> Body:
    encoded = attachment["data"]
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise Trouble(Result.NEVER, "an attachment's data is not base64") from None
    digest = base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()
    del attachment["data"]
    attachment["hash"], attachment["size"] = digest, len(data)
    return Body(owner, attachment, encoded, digest, len(data))
