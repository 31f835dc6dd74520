"""The settings file."""

from __future__ import annotations

from engine.config.kinds import ADDRESS, DURATION, WORD, Parsed, Text, Whole
from engine.config.model import DAY
from engine.config.tables import Field, Table

MEDPLUM = Table(
    "medplum",
    {
        "base_url": Field(
            Text("http(s)://host without /fhir/R4", r"https?://[^\s/?#]+(/(?!.*fhir/R4)[^\s?#]*)?"),
            "the server's address, without /fhir/R4",
            required=True,
        ),
        "client_id": Field(Text(written=True), "of the ClientApplication", required=True),
        "client_secret": Field(
            Text(written=True), "of the ClientApplication; write ${NAME}, not the secret", required=True
        ),
        "time_limit": Field(
            DURATION,
            "the longest that the server works on a request whose client is gone; a write without an answer is looked"
            " for, and only then repeated, after this time",
            default=60.0,
        ),
    },
)


def _ledger(text: str) -> str | None:
    return text if text.startswith("sqlite:///") and len(text) > len("sqlite:///") else None


def _ledger_guess(text: str) -> str | None:
    if text.startswith(("postgresql:", "postgres:")):
        return "sqlite:///var/interlock.db: this version keeps its ledger in SQLite, PostgreSQL comes later"
    return None


RETENTION = Table(
    "retention",
    {
        "audit": Field(DURATION, "the record of who did what; six years is what is usually asked", default=2200 * DAY),
        "reason": Field(WORD, "why less than six years is enough here"),
    },
)

SETTINGS = Table(
    "the settings",
    {
        "channels": Field(WORD, "the folder of the channel files", default="./channels"),
        "mappings": Field(WORD, "a folder that adds to the shipped mappings and wins by name"),
        "ledger": Field(
            Parsed(_ledger, "sqlite:///FILE, such as sqlite:///var/interlock.db", "^sqlite:///.", _ledger_guess),
            "the ledger's file: three slashes = beside this file, four = from the root",
            default="sqlite:///var/interlock.db",
        ),
        "http": Field(ADDRESS, "where the API, /metrics and the health checks listen", default="127.0.0.1:8600"),
        "workers": Field(
            Whole(0, 64, "a number of worker processes"),
            "worker processes that map to FHIR and deliver to Medplum; 0 = in the process that receives",
            default=0,
        ),
        "medplum": Field(MEDPLUM, "the Medplum server"),
        "retention": Field(RETENTION, "how long the service's own record is kept"),
    },
)
