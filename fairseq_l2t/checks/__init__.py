"""Checks that are independent of the engine: finite differences and float64."""
