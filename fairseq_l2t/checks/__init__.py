"""Measurements that cannot share the engine's mistakes: finite differences and float64."""
