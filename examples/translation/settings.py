"""Every number of the translation experiments, in one place: students, teacher, and the corpora they go with."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class TeacherSettings:
    """Options of ``l2t-train-teacher``: ``updates`` teacher updates, each after a whole life of ``student``.

    A teacher knows a student by its progress and its measures alone, so that one trained on a small student teaches a
    larger one of the same vocabulary. ``horizon`` is the length of a life, with ``warmup_updates`` of cross-entropy at
    its start; everything else is the program's default, what brought gains in RESULTS.md.
    """

    student: tuple[str, ...]
    updates: int = 8
    horizon: int = 500
    warmup_updates: int = 20
    seed: int = 1
    more: tuple[str, ...] = ()

    def arguments(self) -> tuple[str, ...]:
        """The command line, without data and folder."""
        values = {
            "--total-updates": self.horizon,
            "--cross-entropy-updates": self.warmup_updates,
            "--teacher-updates": self.updates,
            "--seed": self.seed,
        }
        return self.student + tuple(str(part) for pair in values.items() for part in pair) + self.more


@dataclass(frozen=True)
class RecipeSettings:
    """One experiment: the same ``model`` and ``training`` for every student; the teacher has a student of its own.

    ``validation`` is how students are validated. ``updates`` is the length of every student's training, ``vocabulary``
    the pieces for prepare.py. ``taught`` are options of the taught student alone, beside its criterion;
    ``overrides`` come last in every student's command.
    """

    model: tuple[str, ...]
    training: tuple[str, ...]
    validation: tuple[str, ...]
    updates: int
    teacher: TeacherSettings
    seeds: tuple[int, ...] = (1,)
    label_smoothing: float = 0.1
    beam: int = 5
    jobs: int = 2
    vocabulary: int = 4000
    taught: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()

    def with_updates(self, updates: int) -> RecipeSettings:
        """The same with another length of a student's life; the teacher's training stays as it is."""
        return replace(self, updates=updates)


def _transformer(layers: int, width: int, inner: int, heads: int, dropout: float) -> tuple[str, ...]:
    sides = [
        part
        for side in ("encoder", "decoder")
        for part in (
            f"--{side}-layers",
            str(layers),
            f"--{side}-embed-dim",
            str(width),
            f"--{side}-ffn-embed-dim",
            str(inner),
            f"--{side}-attention-heads",
            str(heads),
        )
    ]
    # Pre-norm: at these sizes it begins to translate much earlier than post-norm.
    return (
        "--arch",
        "transformer",
        *sides,
        "--share-all-embeddings",
        "--dropout",
        str(dropout),
        "--encoder-normalize-before",
        "--decoder-normalize-before",
    )


def _adam(lr: float, warmup: int, max_tokens: int, *more: str) -> tuple[str, ...]:
    return (
        "--optimizer",
        "adam",
        "--adam-betas",
        "(0.9, 0.98)",
        "--lr",
        str(lr),
        "--lr-scheduler",
        "inverse_sqrt",
        "--warmup-updates",
        str(warmup),
        "--max-tokens",
        str(max_tokens),
        "--num-workers",
        "0",
        *more,
    )


def _proxy(width: int, max_tokens: int) -> tuple[str, ...]:
    """A small fconv: it learns more in so many updates than a Transformer of its size, and its hypergradients are less
    noisy (RESULTS.md)."""
    sides = [
        part
        for side in ("encoder", "decoder")
        for part in (f"--{side}-embed-dim", str(width), f"--{side}-layers", f"[({width}, 3)] * 2")
    ]
    return (
        "--arch",
        "fconv",
        *sides,
        "--decoder-out-embed-dim",
        str(width),
        "--share-input-output-embed",
        "--dropout",
        "0.1",
        "--clip-norm",
        "1.0",
        *_adam(4e-3, 50, max_tokens),
    )


LENGTH_LIMIT = {"max_len_a": 1.2, "max_len_b": 10}
"""At most a times the source's length plus b pieces: up to fairseq's 200 a few translations repeat themselves."""


def validation(interval: int, beam: int = 1) -> tuple[str, ...]:
    """Dev BLEU every ``interval`` updates, by which the best checkpoint is chosen; one checkpoint is kept beside it.

    fairseq also validates and saves at the end of epochs; the large epoch intervals switch that off, so that all
    students are validated equally often.
    """
    never = "1000000"
    return (
        "--validate-interval",
        never,
        "--save-interval",
        never,
        "--validate-interval-updates",
        str(interval),
        "--save-interval-updates",
        str(interval),
        "--keep-interval-updates",
        "1",
        "--no-epoch-checkpoints",
        "--eval-bleu",
        "--eval-bleu-remove-bpe",
        "sentencepiece",
        "--eval-bleu-args",
        json.dumps({"beam": beam, **LENGTH_LIMIT}),
        "--best-checkpoint-metric",
        "bleu",
        "--maximize-best-checkpoint-metric",
    )


# The embedded corpus: sized for ten minutes on two cores, the whole of it.
# Its teacher has three short lives of a smaller student than those of RESULTS.md, which get 8 of 500 updates.
DEMO = RecipeSettings(
    model=_transformer(layers=2, width=128, inner=256, heads=4, dropout=0.1),
    training=_adam(3e-3, 200, 1000),
    validation=validation(600),
    updates=1200,
    vocabulary=2000,
    teacher=TeacherSettings(_proxy(64, 1000), updates=3, horizon=300, more=("--validate-interval-updates", "150")),
)

# The Transformer and the teacher of grids/cpu.yaml, without its choice of a learning rate: 1,600 updates are 2.6 epochs
# of the 29,000 pairs, three minutes of one core a student; that is short of the plateau. With NOISE=0.3 the taught
# student is 2 to 4 BLEU ahead there, on clean pairs not beyond chance (RESULTS.md).
MULTI30K = RecipeSettings(
    model=_transformer(layers=2, width=128, inner=256, heads=4, dropout=0.2),
    training=_adam(3e-3, 200, 1000),
    validation=validation(200),
    updates=1600,
    vocabulary=4000,
    teacher=TeacherSettings(_proxy(128, 1000)),
)

# fairseq's published recipe (examples/translation/README.md there): transformer_iwslt_de_en, clipping off,
# inverse square root with 4,000 updates of warm-up to 5e-4, dropout 0.3, weight decay 1e-4, batches of 4,096
# tokens, and dev BLEU by beam 5 every epoch (here every 1,000 updates, about an epoch). That recipe names no end;
# 50,000 updates are about 45 epochs.
IWSLT14 = RecipeSettings(
    model=("--arch", "transformer_iwslt_de_en", "--share-decoder-input-output-embed", "--dropout", "0.3"),
    training=_adam(5e-4, 4000, 4096, "--clip-norm", "0.0", "--weight-decay", "0.0001"),
    validation=validation(1000, beam=5),
    updates=50000,
    vocabulary=10000,
    teacher=TeacherSettings(_proxy(128, 1500), updates=20, horizon=600),
)

PRESETS = {"demo": DEMO, "multi30k": MULTI30K, "iwslt14": IWSLT14}
