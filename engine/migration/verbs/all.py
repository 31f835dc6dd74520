"""Every verb by its name."""

from __future__ import annotations

from engine.migration.phases import Phase
from engine.migration.runs import GIVE_BACK, TAKEOVER
from engine.migration.verbs.ending import AbortVerb
from engine.migration.verbs.handing import GiveBackVerb, TakeoverVerb
from engine.migration.verbs.holding import HoldVerb, ReleaseVerb
from engine.migration.verbs.keeping import LegalHoldVerb, LegalReleaseVerb
from engine.migration.verbs.moving import CutoverVerb, DrainVerb, RollbackVerb
from engine.migration.verbs.phase import PhaseVerb
from engine.migration.verbs.verb import Verb
from engine.migration.verbs.words import AttestVerb, NoteVerb, WaiveVerb

BY_SOCKET = frozenset({TAKEOVER, GIVE_BACK, Phase.LEGACY.value})
"""Verbs for which the connections of one feed are one group."""

VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        TakeoverVerb(),
        GiveBackVerb(),
        PhaseVerb("parallel", Phase.PARALLEL, Phase.LEGACY),
        PhaseVerb("legacy", Phase.LEGACY, Phase.PARALLEL),
        HoldVerb(),
        ReleaseVerb(),
        DrainVerb(),
        CutoverVerb(),
        RollbackVerb(),
        AbortVerb(),
        NoteVerb(),
        AttestVerb(),
        WaiveVerb(),
        LegalHoldVerb(),
        LegalReleaseVerb(),
    )
}
