"""The command line. Verbs about the running service go through its API; the others need no service."""
