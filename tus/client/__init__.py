"""Resumable uploads from Python, to any server of tus 1.0.0 or of the IETF's Resumable Uploads for HTTP.

Law of this room: it imports nothing of a server, and runs on every operating system.
"""
