"""Hypergradients by other libraries."""
