"""Uploads in a directory: one data file and one side-car file for each."""
