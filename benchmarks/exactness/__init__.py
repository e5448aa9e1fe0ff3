"""Exactness of hypergradients, for every student and optimizer."""
