"""The gate: what must hold before a channel's phase moves on. Checks are pure functions over recorded facts."""
