"""FHIR R4 delivery: what a mapping made becomes resources of a Medplum project, once and only once."""
