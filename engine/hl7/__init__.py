"""HL7 v2: messages and their parts, charsets, escapes, times, groups, acknowledgements. No I/O."""
