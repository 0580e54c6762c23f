"""Check and repair a directory of uploads."""
