"""The old engine's work beside ours: pairing, differences by meaning, what they amount to."""
