"""The OpenAPI document, made from the shapes of questions and answers: it cannot say anything else than the code."""

from __future__ import annotations

from typing import Any

from engine.api.evidence import (
    AuditRow,
    AuditVerdict,
    ComparedRow,
    DiscrepancyDetail,
    DiscrepancyQuestion,
    DiscrepancyRow,
    GateRow,
    ReconcileQuestion,
    ReconcileReport,
    Selected,
    Settlement,
)
from engine.api.moving import VERBS, Answer, Run
from engine.api.reading import ChannelInfo, MessageDetail, MessageRow, MessageSearch, Readiness, Status
from engine.api.remedies import (
    EditOrder,
    ReplayOrder,
    ReplayState,
    StopOrder,
    WorkAnswer,
    WorkOrder,
    WorkQuestion,
    WorkRow,
)
from engine.api.shape import Schema, schema
from engine.api.taps import ForwardOrder, GiveOrder, OutputAnswer, OutputDetail, OutputOrder, OutputQuestion, OutputRow
from engine.api.unmapped import CodeList, CodeOrder, CodeQuestion, CodeRow, LostQuestion, LostRow
from engine.api.upkeep import BackupOrder, BackupState, PruneOrder, RetentionRow

PROBLEM: Schema = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
"""What an answer looks like that is no success (RFC 9457)."""


def _parameter(name: str, place: str, kind: str, text: str) -> Schema:
    return {"name": name, "in": place, "required": place == "path", "schema": {"type": kind}, "description": text}


CHANNEL = _parameter("channel", "query", "string", "only this channel")
LIMIT = _parameter("limit", "query", "integer", "at most so many, 1 to 1000; 50 unless given")
BEFORE = _parameter("before", "query", "integer", "only sequence numbers below it; wants channel")
MESSAGE = [
    _parameter("channel", "path", "string", "the channel's id"),
    _parameter("seq", "path", "integer", "the sequence number"),
]
ACTIVE = _parameter("active", "query", "boolean", "only those that have not ended")
RUN = [
    _parameter("id", "path", "integer", "the run's number"),
    _parameter("after", "query", "integer", "wait until its version is above this one"),
    _parameter("wait", "query", "integer", "at most so many seconds, 0 to 30"),
]
DISCREPANCY = [_parameter("id", "path", "integer", "the discrepancy's number")]
ROW = _parameter("before", "query", "integer", "only rows with a lower id")


class Paths:
    """Collects the shapes that the paths name."""

    def __init__(self) -> None:
        self.named: dict[str, Schema] = {"Problem": PROBLEM}

    def get(self, kind: Any, summary: str, *parameters: Schema) -> Schema:
        return {"get": self._operation(kind, summary, list(parameters))}

    def post(self, wanted: Any, kind: Any, summary: str, *parameters: Schema) -> Schema:
        content = {"application/json": {"schema": schema(wanted, self.named)}}
        request = {"required": True, "content": content}
        return {"post": self._operation(kind, summary, list(parameters)) | {"requestBody": request}}

    def _operation(self, kind: Any, summary: str, parameters: list[Schema]) -> Schema:
        content = {"application/json": {"schema": schema(kind, self.named)}}
        failed = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        responses = {
            "200": {"description": summary, "content": content},
            "default": {"description": "what was wrong; 409: a refusal, a sentence a line", "content": failed},
        }
        return {"summary": summary, "parameters": parameters, "responses": responses}

    def everything(self) -> dict[str, Schema]:
        return (
            self.of_messages()
            | self.of_verbs()
            | self.of_evidence()
            | self.of_upkeep()
            | self.of_remedies()
            | self.of_taps()
            | self.of_gaps()
            | self.of_machines()
        )

    def of_messages(self) -> dict[str, Schema]:
        api = "/api/v1"
        by_key = "Messages by control id, order, patient, type, time …; none of that ever stands in a URL"
        return {
            f"{api}/status": self.get(Status, "Every channel and destination, counted"),
            f"{api}/channels": self.get(list[ChannelInfo], "The channels as configured"),
            f"{api}/messages": self.get(list[MessageRow], "The newest messages", CHANNEL, LIMIT, BEFORE),
            f"{api}/messages/search": self.post(MessageSearch, list[MessageRow], by_key),
            f"{api}/messages/{{channel}}/{{seq}}": self.get(MessageDetail, "One message and its history", *MESSAGE),
        }

    def of_verbs(self) -> dict[str, Schema]:
        verbs = {f"/api/v1/verbs/{verb}": self.post(kind, Answer, text) for verb, (kind, text) in VERBS.items()}
        return verbs | {
            "/api/v1/runs": self.get(list[Run], "The runs, newest first", ACTIVE),
            "/api/v1/runs/{id}": self.get(Run, "One run, when it has changed or the wait is over", *RUN),
        }

    def of_evidence(self) -> dict[str, Schema]:
        one = "/api/v1/discrepancies/{id}"
        shown = self.get(DiscrepancyDetail, "One discrepancy, with examples from messages", *DISCREPANCY)
        settled = self.post(Settlement, DiscrepancyRow, "What a person decided about it", *DISCREPANCY)
        return {
            "/api/v1/gate": self.post(Selected, list[GateRow], "Every check of the gate, explained"),
            "/api/v1/compare": self.post(Selected, list[ComparedRow], "How the two sides compare, at each tap"),
            "/api/v1/discrepancies": self.post(DiscrepancyQuestion, list[DiscrepancyRow], "Classes of difference"),
            one: shown | settled,
            "/api/v1/reconcile": self.post(ReconcileQuestion, ReconcileReport, "Count both sides, and name each item"),
            "/api/v1/audit": self.get(list[AuditRow], "What was done, newest first", LIMIT, ROW),
            "/api/v1/audit/verify": self.get(AuditVerdict, "Whether a row was edited, removed or cut off"),
        }

    def of_remedies(self) -> dict[str, Schema]:
        api = "/api/v1"
        id = _parameter("id", "path", "integer", "the replay's number")
        return {
            f"{api}/open-work": self.post(WorkQuestion, list[WorkRow], "What is open and wants a person"),
            f"{api}/open-work/retry": self.post(WorkOrder, WorkAnswer, "Try open messages again now"),
            f"{api}/open-work/discard": self.post(WorkOrder, WorkAnswer, "Close open messages without sending them"),
            f"{api}/open-work/edit": self.post(EditOrder, WorkAnswer, "Send an open message with other bytes"),
            f"{api}/replays": self.get(list[ReplayState], "The replays, newest first")
            | self.post(ReplayOrder, WorkAnswer, "Send settled messages to a destination once more"),
            f"{api}/replays/{{id}}/stop": self.post(StopOrder, ReplayState, "Begin no more of a replay", id),
        }

    def of_taps(self) -> dict[str, Schema]:
        outputs = "/api/v1/tap-outputs"
        one = f"{outputs}/{{id}}"
        id = _parameter("id", "path", "integer", "the output's number")
        return {
            outputs: self.post(OutputQuestion, list[OutputRow], "Outputs of the old engine that wait for a person"),
            one: self.get(OutputDetail, "One of them, with its bytes", id),
            f"{one}/forward": self.post(ForwardOrder, OutputAnswer, "Send one to its endpoint, once", id),
            f"{one}/give": self.post(GiveOrder, OutputAnswer, "Say which input one belongs to", id),
            f"{one}/discard": self.post(OutputOrder, OutputAnswer, "Close one without sending it", id),
        }

    def of_gaps(self) -> dict[str, Schema]:
        unmapped = "/api/v1/unmapped"
        lost = "Fields whose values are in no resource, counted"
        return {
            unmapped: self.post(CodeQuestion, CodeList, "Codes that no table knew, counted"),
            f"{unmapped}/set": self.post(CodeOrder, list[CodeRow], "Say who takes care of a code, and how it stands"),
            f"{unmapped}/fields": self.post(LostQuestion, list[LostRow], lost),
        }

    def of_upkeep(self) -> dict[str, Schema]:
        kept = "What would be removed by age, and what holds back"
        state = self.get(BackupState, "How far the newest backup has come")
        return {
            "/api/v1/retention": self.get(list[RetentionRow], kept),
            "/api/v1/retention/prune": self.post(PruneOrder, list[RetentionRow], "Remove what is old enough, now"),
            "/api/v1/backup": state | self.post(BackupOrder, BackupState, "Copy the ledger to one file"),
        }

    def of_machines(self) -> dict[str, Schema]:
        alive = {"summary": "200 while the process answers", "responses": {"200": {"description": "ok"}}}
        scraped = {"summary": "For Prometheus", "responses": {"200": {"description": "text"}}}
        ready = "200 while ports are open and the ledger is writable, else 503"
        return {"/healthz": {"get": alive}, "/readyz": self.get(Readiness, ready), "/metrics": {"get": scraped}}


def document(version: str) -> Schema:
    paths = Paths()
    return {
        "openapi": "3.1.0",
        "info": {"title": "Interlock", "version": version},
        "paths": paths.everything(),  # first: it collects what stands in components
        "components": {"schemas": paths.named, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}],
    }
