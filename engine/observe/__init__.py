"""What happens, said once: typed events, each one log line and its metric; and the metrics themselves."""
