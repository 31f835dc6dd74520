"""Stand-ins for the parties around the engine: vendors, the old engine and its faults. Synthetic patients only."""
