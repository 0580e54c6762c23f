"""Logging and metrics: they listen to events."""
