"""Delivery of one output to one Medplum project, once and only once, whatever breaks when.

    anchors (cache, search, create or merge) → facts that exist → large bodies → one transaction (or step by step)

Everything before the transaction may be repeated without harm. A transaction without an answer is not: the outcome
is UNKNOWN, and the next call, with `unknown=True`, waits out the server's time limit, looks for the message's mark, and
writes only what is not there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from engine.fhir import binary
from engine.fhir.anchored import Anchored, NotAtomic
from engine.fhir.anchors import Anchors, pause, query_for
from engine.fhir.client import FhirClient, Query, Spent
from engine.fhir.condition import tagged
from engine.fhir.events import RequestFailed
from engine.fhir.facts import Write, distinct, lookup, plan, point_at
from engine.fhir.failure import LOCAL, Trouble
from engine.fhir.merge import same
from engine.fhir.output import Entry, Output, Resource
from engine.fhir.patients import is_linking
from engine.fhir.probe import Reachability, probe
from engine.fhir.quota import SEARCH, WRITE
from engine.fhir.series import Places, base_of
from engine.fhir.stepwise import Stepwise
from engine.fhir.survivors import Patients, Replaced
from engine.fhir.tags import marks, provenance_code, provenance_name, stamped_provenance
from engine.fhir.transaction import Limits
from engine.fhir.turns import Turns
from engine.ledger.outcome import Outcome, Result
from engine.observe.delivery_events import NotAtomic as ProjectNotAtomic
from engine.observe.events import emit

SERVER_LIMIT_S = 60.0  # the longest that the server works on a request whose client is gone
PROBE_EVERY_S = 3600.0
ROUNDS = 4  # how often a message is planned anew because somebody else wrote meanwhile


class Deliverer:
    """Delivers outputs to the project that the client is logged in to.

    server_limit: seconds after which an unanswered transaction is over, one way or the other.
    endpoint: the name in log lines. Messages that write the same take turns; the others go side by side.
    """

    def __init__(
        self,
        client: FhirClient,
        *,
        endpoint: str = "medplum",
        server_limit: float = SERVER_LIMIT_S,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        incarnations: Sequence[str] = (),
    ) -> None:
        """incarnations: of the ledger, oldest first, where it was ever restored."""
        self._client = client
        self._endpoint = endpoint
        self._server_limit = server_limit
        self._clock = clock
        self._started = clock()
        limits = limits or Limits()
        self._anchors = Anchors(client, incarnations=incarnations)
        self._incarnations = incarnations
        self._bodies = binary.Bodies(client)
        self._anchored = Anchored(client, limits)
        self._stepwise = Stepwise(client, limits)
        self._turns = Turns()
        self._probing = asyncio.Lock()
        self._atomic: bool | None = None
        self._probe_at = 0.0

    @property
    def atomic(self) -> bool | None:
        """Whether the project's transactions are atomic; None before the first probe."""
        return self._atomic

    async def close(self) -> None:
        await self._client.close()

    async def probe(self) -> Reachability:
        """Look whether the project can be reached and how it treats transactions."""
        seen = await probe(self._client)
        if seen.atomic is not None:
            self._probe_at = self._clock() + PROBE_EVERY_S
            self._learn(seen.atomic)
        return seen

    async def deliver(self, output: Output, tag: str, *, unknown: bool = False, since: float = 0.0) -> Outcome:
        """Bring the output to the project.

        tag: the message's mark, `<incarnation>/<channel>/<sequence>`, the same at every attempt.
        unknown: an earlier attempt may have been taken; it ended at `since`, in seconds of the event loop's clock,
        0 = before this process. After an UNKNOWN the outcome's `after` is the time to be waited; what is left of it
        is waited out here.
        Never raises for what a network or a server does. The output is left as it was.
        """
        spent = Spent()
        urns = {id(entry): entry.reference["reference"] for entry in output.entries}
        bodies: list[binary.Body] = []
        try:
            if unknown and await self._was_taken(output, tag, since, spent):
                return Outcome(Result.DELIVERED, "found by its mark", points=spent.points)
            bodies = binary.take_out(output)
            await self._deliver(output, urns, bodies, tag, unknown, spent)
            return Outcome(Result.DELIVERED, points=spent.points)
        except Trouble as trouble:
            return self._outcome(trouble, spent)
        finally:
            binary.put_back(bodies)
            _open_references(output, urns)

    def _outcome(self, trouble: Trouble, spent: Spent) -> Outcome:
        if trouble.request_id:
            emit(RequestFailed(self._endpoint, trouble.request_id, trouble.reason))
        after = self._server_limit if trouble.result is Result.UNKNOWN else trouble.after
        return Outcome(trouble.result, trouble.reason, after=after, points=spent.points, trouble=trouble.of_endpoint)

    async def _was_taken(self, output: Output, tag: str, since: float, spent: Spent) -> bool:
        """Wait until the earlier attempt is over, then look for its provenance, which is written with the last fact."""
        over = max(since, self._started) + self._server_limit
        await asyncio.sleep(max(0.0, over - self._clock()))
        wanted = sum(entry.role == "provenance" for entry in output.entries)
        if not wanted:
            return False  # then each fact is looked for
        [found] = await self._client.search([Query("Provenance", tagged(tag), wanted)], spent)
        return len(found) >= wanted

    async def _deliver(
        self, output: Output, urns: dict[int, str], bodies: list[binary.Body], tag: str, unknown: bool, spent: Spent
    ) -> None:
        await self._probe_when_due()
        points = estimate(output)
        async with self._turns.take(_contended(output)):
            self._client.quota.reserve(points)
            try:
                await self._in_rounds(output, urns, bodies, tag, unknown, spent)
            finally:
                self._client.quota.release(points)

    async def _in_rounds(
        self, output: Output, urns: dict[int, str], bodies: list[binary.Body], tag: str, unknown: bool, spent: Spent
    ) -> None:
        """Plan and write; plan anew where that failed because the world had changed since."""
        forgot = moved = False
        for attempt in range(ROUNDS):
            try:
                await self._once(output, urns, bodies, tag, unknown, spent)
                return
            except NotAtomic:
                self._learn(False)
                self._anchors.forget(_anchors(output))
            except Replaced:  # what was written refers to a record that was merged into another: once more, to that
                self._anchors.forget(_anchors(output))
                if moved:
                    return
                moved = True
            except Trouble as trouble:
                # The server refused what is cached: an anchor was deleted. Once more, with nothing taken from memory.
                outdated = trouble.gone and not forgot
                if not (trouble.stale or outdated) or attempt == ROUNDS - 1:
                    raise
                if outdated:
                    forgot = True
                    self._anchors.forget(_anchors(output))
                else:
                    await pause(attempt)
            _open_references(output, urns)
        raise Trouble(Result.NOT_TAKEN, "somebody else writes the same resources", code=LOCAL)

    async def _once(
        self, output: Output, urns: dict[int, str], bodies: list[binary.Body], tag: str, unknown: bool, spent: Spent
    ) -> None:
        anchors = _anchors(output)
        facts, twins = distinct([entry for entry in output.entries if entry.role == "fact"])
        known = await self._look(anchors, facts, tag, spent)
        point_at(facts, known.found, twins)
        begun = self._anchors.wrote(anchors, tag) or any(tag in marks(found) for found in known.found.values())
        late = await self._anchors.settle(anchors, tag, spent)
        begun |= self._anchors.begun(tag)
        confirmed = {self._anchors.current(entry)["id"] for entry in anchors if entry.series}
        if confirmed:  # of a series: the facts are none of these
            wanted = lookup(facts)
            known = wanted.found(await self._client.search(wanted.queries, spent), confirmed, tag)
            for entry in facts:
                for one in (entry, *twins.get(id(entry), ())):
                    one.reference["reference"] = urns[id(entry)]
            point_at(facts, known.found, twins)
        try:
            persons = self._anchors.persons(anchors)
            writes = plan(facts, known, urns, twins, tag, self._incarnations, persons)
            closing = await self._anchors.closing(late, tag, spent)
            writes += [Write(entry, resource) for entry, resource in closing]
            await self._store(bodies, writes, spent)
            if writes or unknown or self._anchors.wrote(anchors, tag) or begun:
                writes += await self._provenance(output, urns, tag, begun or unknown, spent)
            if writes:
                await self._write(writes, anchors, tag, spent)
        finally:
            self._anchors.forget(late)  # their versions change with the transaction
            self._anchors.forget_resources(known.found.values())

    async def _store(self, bodies: Sequence[binary.Body], writes: Sequence[Write], spent: Spent) -> None:
        """Upload the bodies of what is written, and make what is written point at them."""
        for body in bodies:
            for write in writes:
                if write.entry.resource is body.owner:
                    await self._bodies.store(body, spent)
                    binary.adopt(body.owner, write.resource)

    async def _provenance(
        self, output: Output, urns: dict[int, str], tag: str, begun: bool, spent: Spent
    ) -> list[Write]:
        """The provenances of the message, less those that an earlier attempt has written already and rightly."""
        entries = [entry for entry in output.entries if entry.role == "provenance"]
        known: dict[str, Resource] = {}
        if begun and entries:
            [found] = await self._client.search([Query("Provenance", tagged(tag), len(entries))], spent)
            known = {provenance_name(one): one for one in found}
        writes = []
        for n, entry in enumerate(entries):
            resource = stamped_provenance(entry.resource, tag, n)
            existing = known.get(provenance_code(tag, n))
            if existing is None:
                writes.append(Write(entry, resource, urns[id(entry)]))
            elif not same(resource, existing):
                meta = {**resource["meta"], "versionId": existing["meta"]["versionId"]}
                writes.append(Write(entry, {**resource, "id": existing["id"], "meta": meta}))
        return writes

    async def _look(self, anchors: Sequence[Entry], facts: Sequence[Entry], tag: str, spent: Spent) -> Places:
        """One request for all that has to be searched: anchors that are not cached, and the facts."""
        unknown = self._anchors.recall(anchors)
        wanted = lookup(facts)
        answers = await self._client.search([*map(query_for, unknown), *wanted.queries], spent)
        for entry, found in zip(unknown, answers, strict=False):
            await self._anchors.learn(entry, found, spent)
        return wanted.found(answers[len(unknown) :], code=tag)

    async def _write(self, writes: Sequence[Write], anchors: Sequence[Entry], tag: str, spent: Spent) -> None:
        strategy = self._anchored if self._atomic else self._stepwise
        if any(map(is_linking, anchors)):
            await strategy.write(writes, Patients(), spent)  # it writes the patients themselves
            return
        touched = {f"Patient/{write.resource.get('id')}" for write in writes if write.is_update}
        own = {entry.reference["reference"] for entry in anchors if entry.type == "Patient"}
        patients = Patients(tuple(sorted(own - touched)), tuple(sorted(self._anchors.merged_into(anchors))))
        await strategy.write(writes, patients, spent)

    async def _probe_when_due(self) -> None:
        if self._clock() < self._probe_at:
            return
        async with self._probing:
            if self._clock() < self._probe_at:
                return
            seen = await self.probe()
            if self._atomic is None:
                raise Trouble(seen.result or Result.NOT_TAKEN, seen.reason)

    def _learn(self, atomic: bool) -> None:
        if not atomic and self._atomic is not False:
            emit(ProjectNotAtomic(self._endpoint))
        self._atomic = atomic


def estimate(output: Output) -> int:
    """Quota points that the delivery may need at most when its anchors are known: for pacing."""
    own = [entry for entry in output.entries if entry.role != "anchor"]
    return WRITE * len(own) + SEARCH * len({entry.type for entry in own})


def _open_references(output: Output, urns: dict[int, str]) -> None:
    """The references as the mapping left them."""
    for entry in output.entries:
        entry.reference["reference"] = urns[id(entry)]
        entry.reference.pop("identifier", None)


def _contended(output: Output) -> set[tuple[str, ...]]:
    """What no other message may write meanwhile: the patient, and what the message itself says, which may come under
    another number of the patient too."""
    own = [entry for entry in output.entries if entry.key and (entry.role == "fact" or entry.type == "Patient")]
    return {(entry.type, *(base_of(entry) if entry.series else entry.key[0])) for entry in own}


def _anchors(output: Output) -> list[Entry]:
    return [entry for entry in output.entries if entry.role == "anchor"]
