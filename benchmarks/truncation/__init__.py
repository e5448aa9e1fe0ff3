"""How long a window must be."""
