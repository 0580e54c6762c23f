"""The names of tuspy over this client: a project changes its imports, and nothing else.

>>> from tus.client.tusclient import client
>>> my_client = client.TusClient("https://example.org/files/")

Each module of tuspy's ``tusclient`` has its counterpart here.
"""
