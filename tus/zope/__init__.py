"""Uploads in Zope: a ready view, ``@@tus``, on every folder and on the root. See docs/zope.rst."""
