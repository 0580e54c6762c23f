"""Clients of both protocols race for the same uploads while worker processes are killed; then every byte is accounted.

``python -m tests.racing --requests 100000`` runs it on a real server; ``test_racing.py`` is the short form.
"""
