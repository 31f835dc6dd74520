"""The HTTP side: what runs is asked and told here, by the command line, by Prometheus, later by the console."""
