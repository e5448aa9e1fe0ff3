"""Memory of a window: budget, plan, stores, packing, peak measurement."""
