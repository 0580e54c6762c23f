"""Clients that are killed at random moments and started again: each file arrives whole, and once.

``python -m tests.client.kills --rounds 200`` is the long form. In each round one file is uploaded through a proxy that
delays, cuts and loses. The process of the client gets a SIGKILL at a random moment, and is started again, until it has
uploaded the file. Only the records on the disk connect the lives of a round.
"""
