"""Every verb by its name."""

from __future__ import annotations

from engine.migration.phases import Phase
from engine.migration.verbs.holding import HoldVerb, ReleaseVerb
from engine.migration.verbs.moving import AbortVerb, CutoverVerb, DrainVerb, RollbackVerb
from engine.migration.verbs.phase import PhaseVerb
from engine.migration.verbs.verb import Verb
from engine.migration.verbs.words import AttestVerb, NoteVerb, WaiveVerb

VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
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
    )
}
