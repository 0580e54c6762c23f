"""The protocols as pure decisions: no I/O, no clock, no randomness. Time and ids come in as arguments."""
