"""The mapping language: YAML that says which HL7 v2 field becomes which FHIR element, compiled to Python once."""
