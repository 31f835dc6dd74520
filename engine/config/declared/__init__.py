"""Every key that a configuration file may have, declared once: parsing, checks, JSON Schema and help follow from it.

What the design knows and this version does not do yet is `refused` where leaving it undone would change what
happens to messages, and `noted` where it is only checked so far.
"""

from __future__ import annotations

from engine.config.declared.channel import CHANNEL
from engine.config.declared.endpoint import ENDPOINTS
from engine.config.declared.feed import FEED
from engine.config.declared.profile import PROFILE
from engine.config.declared.settings import SETTINGS
from engine.config.kinds import Schema


def json_schema() -> Schema:
    """JSON Schemas of a channel, a feed, endpoints.yaml, profiles.yaml and the settings, for editors."""
    endpoint = {"anyOf": [table.schema() for table in ENDPOINTS.values()]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {
            "channel": CHANNEL.schema(),
            "endpoints": {"type": "object", "additionalProperties": endpoint},
            "feed": FEED.schema(),
            "profiles": {"type": "object", "additionalProperties": PROFILE.schema()},
            "settings": SETTINGS.schema(),
        },
    }
