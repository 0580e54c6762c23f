"""Adapters: each knows one framework, and gives its requests and responses the form that :class:`~tus.Tus` needs."""
