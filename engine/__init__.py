"""Interlock: replaces an HL7 v2 interface engine under live traffic, one connection at a time."""
