"""One running process, built from its configuration."""
