"""The durable record: what was received, what may have been sent, what became of it."""
