"""Adapters: each knows exactly one framework, and shows its requests and responses as :class:`~tus.Tus` needs them."""
