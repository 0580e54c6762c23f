"""Uploads in Zope: the view ``@@tus`` on every folder and on the root. See docs/zope.rst."""
