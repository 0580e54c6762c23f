"""Fault injection: each system call of an upload's life fails once.

``python -m tests.faults`` tries each call of each life with each fault; ``test_faults.py`` tries a part of that.
"""
