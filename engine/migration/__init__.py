"""Moving a connection: phases, and what they let each side send."""
