"""A model of power loss, which drives the directory store through random histories.

``python -m tests.powerloss --rounds N --seed S`` runs many of them, and ``--mutants`` shows for each sync of the store
that histories without it break a promise.
"""
