"""Checks of the hypergradients of a fairseq student."""
