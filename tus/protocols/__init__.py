"""The protocols as pure decisions: no I/O, no clock, no randomness. Times and ids are arguments."""
