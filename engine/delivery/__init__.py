"""The loop that turns open work into settled work: lanes, retry, breakers, destinations."""
