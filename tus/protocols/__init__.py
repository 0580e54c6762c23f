"""The rules of tus 1.0.0 and of the IETF protocol, as pure decisions: no I/O, no clock, no randomness."""
