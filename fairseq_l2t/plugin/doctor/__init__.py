"""Checks whether the hypergradients of a fairseq student can be trusted."""
