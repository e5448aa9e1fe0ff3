"""A generated German-English corpus: seeded, with its own grammar, and noisy on request."""
