"""v2 → v2: one HL7 v2 message into others, as a YAML file says. Every byte that no step names stays as it came."""
