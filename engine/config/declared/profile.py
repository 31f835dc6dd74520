"""A profile: keys that lie beneath the channels, feeds and endpoints that name it."""

from __future__ import annotations

from engine.config.declared.channel import CHANNEL
from engine.config.declared.endpoint import ENDPOINTS, MLLP
from engine.config.tables import Field, Table

OWN = ("id", "profile")
"""What a channel says for itself."""

ENDPOINT = Table(
    "an endpoint",
    {
        key: field
        for table in (*ENDPOINTS.values(), MLLP)  # of a key that several have, the peers' is the widest
        for key, field in table.fields.items()
        if key not in (*OWN, *ENDPOINTS)
    },
).partial()

PROFILE = Table(
    "a profile",
    {
        **{key: field for key, field in CHANNEL.partial().fields.items() if key not in OWN},
        "endpoint": Field(ENDPOINT, "what lies beneath an endpoint that names the profile"),
    },
)
