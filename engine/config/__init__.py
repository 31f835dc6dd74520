"""What people configure: channels, endpoints and the service, read from YAML and checked before anything starts."""
