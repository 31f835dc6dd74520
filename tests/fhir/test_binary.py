"""Large bodies go first, once, and are found again by their hash."""

from __future__ import annotations

import base64

from engine.fhir.deliverer import Deliverer
from engine.fhir.output import Output
from engine.ledger.outcome import Result
from tests.fhir.conftest import MakeDeliverer
from tests.fhir.outputs import named, oru
from tests.support.sandbox import Sandbox

LARGE = base64.b64encode(b"%PDF" + bytes(range(256)) * 6000).decode()  # 1.5 MB
SMALL = base64.b64encode(b"%PDF" * 100).decode()


def with_form(data: str, **options: str) -> Output:
    output = oru(results=1, **options)  # type: ignore[arg-type]
    named(output, "DiagnosticReport").resource["presentedForm"] = [{"contentType": "application/pdf", "data": data}]
    return output


async def test_a_large_body_becomes_a_binary_and_is_uploaded_once(
    sandbox: Sandbox, make_deliverer: MakeDeliverer
) -> None:
    first = with_form(LARGE)
    for n, deliverer in enumerate((make_deliverer(), make_deliverer())):
        outcome = await deliverer.deliver(first, f"i1/acme/{n}")
        assert outcome.result is Result.DELIVERED, outcome.reason
    [binary] = sandbox.dump("Binary")
    assert binary["contentType"] == "application/pdf"
    [form] = sandbox.one("DiagnosticReport")["presentedForm"]
    assert form["url"] == f"Binary/{binary['id']}"
    assert form["size"] == len(base64.b64decode(LARGE))
    assert sandbox.stats()["versions"]["DiagnosticReport"] == 1
    assert named(first, "DiagnosticReport").resource["presentedForm"] == [
        {"contentType": "application/pdf", "data": LARGE}
    ]


async def test_a_small_body_stays_where_it_is(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await deliverer.deliver(with_form(SMALL), "i1/acme/1")
    assert sandbox.dump("Binary") == []
    assert sandbox.one("DiagnosticReport")["presentedForm"][0]["data"] == SMALL


async def test_an_attempt_that_failed_after_the_upload_does_not_upload_again(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    await deliverer.deliver(oru("A0"), "i1/acme/1")
    sandbox.faults({"status": 503, "path": "/fhir/R4/$", "skip": 1, "count": 1, "method": "POST"})
    assert (await deliverer.deliver(with_form(LARGE), "i1/acme/2")).result is Result.NOT_TAKEN
    assert (await deliverer.deliver(with_form(LARGE), "i1/acme/2")).result is Result.DELIVERED
    assert len(sandbox.dump("Binary")) == 1


async def test_a_body_that_changed_is_a_new_binary(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await deliverer.deliver(with_form(LARGE), "i1/acme/1")
    other = base64.b64encode(b"other" + base64.b64decode(LARGE)).decode()
    await deliverer.deliver(with_form(other, issued="2026-03-02T00:00:00Z"), "i1/acme/2")
    assert len(sandbox.dump("Binary")) == 2
    newest = sandbox.one("DiagnosticReport")["presentedForm"][0]["url"]
    assert newest == f"Binary/{sandbox.dump('Binary')[1]['id']}"


async def test_what_is_no_base64_is_never_taken(deliverer: Deliverer) -> None:
    assert (await deliverer.deliver(with_form(LARGE + "*"), "i1/acme/1")).result is Result.NEVER
