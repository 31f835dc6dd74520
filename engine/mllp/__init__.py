"""MLLP: HL7 v2 messages as blocks on a TCP stream. `framing` knows no socket; `server` and `client` are thin."""
