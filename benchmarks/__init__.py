"""Figures about this package: ``python -m benchmarks`` beside other servers, and scripts about single questions."""
