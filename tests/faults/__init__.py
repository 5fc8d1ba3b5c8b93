"""Faults made on purpose, many times over: see `python -m tests.faults --help`."""
