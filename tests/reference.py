"""Slow, obvious twins of every fast path; the benchmarks import the same ones."""
