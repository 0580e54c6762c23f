"""Logging and metrics, as listeners to events."""
