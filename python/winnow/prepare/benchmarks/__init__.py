"""Readers of long-context benchmarks: a module each, with the fields of its files and its own metric."""
