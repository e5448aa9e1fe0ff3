"""Tiny students and independent references, shared by tests, benchmarks and the doctor."""
