"""Processes beside intake that map messages and deliver them to Medplum."""
