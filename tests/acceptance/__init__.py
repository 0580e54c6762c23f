"""Does each finished file reach its application once, whatever dies? A site, a receiver, real clients, and an audit.

``python -m tests.acceptance --kills 200`` counts it over random deaths; :mod:`tests.acceptance.rows` is a row
for each step at which something can fail.
"""
