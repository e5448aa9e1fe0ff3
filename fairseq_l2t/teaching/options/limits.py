"""The largest numbers that options accept. They are far above sensible values; larger ones are slips of the keyboard.

Without them a run would fail late: an overflow in a library, a loop that never ends, a loss that is infinite at once.
"""

from __future__ import annotations

__all__ = [
    "LARGEST_COEFFICIENT",
    "LARGEST_COUNT",
    "LARGEST_LAYERS",
    "LARGEST_LIVES",
    "LARGEST_NORM",
    "LARGEST_RATE",
    "LARGEST_SECONDS",
    "LARGEST_SEED",
    "LARGEST_TEACHER_RATE",
    "LARGEST_WIDTH",
    "SMALLEST_COEFFICIENT",
]

LARGEST_COUNT = 10_000_000
"""Of updates, tokens, sentences: a year of updates of a third of a second each has 9.5 million."""

LARGEST_LIVES = 1000
"""Of lives, keys, sampled hypotheses."""

LARGEST_LAYERS = 1000
"""Of layers on a side."""

LARGEST_WIDTH = 1_000_000
"""Of units in a layer."""

LARGEST_RATE = 1e6
"""Of a student's learning rate or weight decay."""

LARGEST_TEACHER_RATE = 100.0
"""Of a teacher's learning rate; Adam moves a coefficient by about so much in each teacher update."""

LARGEST_COEFFICIENT = 1000.0
"""Of a coefficient of the loss; the sigmoid of so many nats is 0."""

SMALLEST_COEFFICIENT = 1e-6
"""Of the initial coefficient of a label; the default of --loss-scale is 4 divided by it."""

LARGEST_NORM = 1e9
"""Of gradients before clipping; a larger limit never clips, which 0 asks for."""

LARGEST_SECONDS = 1e6
"""Of waiting for another process: eleven days."""

LARGEST_SEED = 2**31 - 1
"""fairseq seeds NumPy, which accepts 32 bits, for the data order, and lives count up from it."""
