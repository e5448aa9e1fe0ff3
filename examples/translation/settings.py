"""Every number of the translation experiments, in one place: students, teacher, and the corpora they go with."""
from __future__ import annotations

import json
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class TeacherSettings:
    """Options of ``l2t-train-teacher``: ``updates`` teacher updates with windows of ``unroll_length`` steps each.

    ``more`` overrides what teacher and students share; ``warmup_updates`` is cross-entropy at the start of a
    student's life, ``horizon`` the length of that life.
    """

    updates: int
    unroll_length: int
    horizon: int
    warmup_updates: int
    lr: float = 0.02
    keys: int = 5
    objective: str = "likelihood"
    estimator: str = "reinforce"
    samples: int = 4
    dev_batch: int = 64
    dev_holdout: float = 0.2
    seed: int = 1
    more: tuple[str, ...] = ()

    def arguments(self) -> tuple[str, ...]:
        """The command line, without data, model and folder."""
        values = {"--unroll-length": self.unroll_length, "--total-updates": self.horizon,
                  "--cross-entropy-updates": self.warmup_updates, "--teacher-updates": self.updates,
                  "--teacher-lr": self.lr, "--teacher-keys": self.keys, "--objective": self.objective,
                  "--estimator": self.estimator, "--samples": self.samples, "--dev-batch": self.dev_batch,
                  "--dev-holdout": self.dev_holdout, "--seed": self.seed}
        return tuple(str(part) for pair in values.items() for part in pair) + self.more


@dataclass(frozen=True)
class RecipeSettings:
    """One experiment: the same ``model`` and ``training`` options for every student and for the teacher's students.

    ``validation`` goes to the students only. ``updates`` is the length of every student's training, ``vocabulary``
    the pieces for prepare.py. ``taught`` are options of the taught student alone, beside its criterion;
    ``overrides`` come last in every training command.
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
    sides = [part for side in ("encoder", "decoder") for part in (
        f"--{side}-layers", str(layers), f"--{side}-embed-dim", str(width), f"--{side}-ffn-embed-dim", str(inner),
        f"--{side}-attention-heads", str(heads))]
    # Pre-norm: at these sizes it begins to translate much earlier than post-norm.
    return ("--arch", "transformer", *sides, "--share-all-embeddings", "--dropout", str(dropout),
            "--encoder-normalize-before", "--decoder-normalize-before")


def _proxy(max_tokens: int) -> tuple[str, ...]:
    """A student of one layer of 64 and small batches: what a teacher can be trained on for whole lives.

    A teacher knows a student by its progress and its measures alone, so that one trained on a small student can
    teach a larger one of the same vocabulary.
    """
    sides = [part for side in ("encoder", "decoder") for part in (
        f"--{side}-layers", "1", f"--{side}-embed-dim", "64", f"--{side}-ffn-embed-dim", "128",
        f"--{side}-attention-heads", "4")]
    return (*sides, "--dropout", "0.1", "--lr", "3e-3", "--warmup-updates", "50", "--max-tokens", str(max_tokens),
            "--initial-coefficient", "0.3", "--validate-interval-updates", "150")


def _adam(lr: float, warmup: int, max_tokens: int, *more: str) -> tuple[str, ...]:
    return ("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--lr", str(lr), "--lr-scheduler", "inverse_sqrt",
            "--warmup-updates", str(warmup), "--max-tokens", str(max_tokens), "--num-workers", "0", *more)


LENGTH_LIMIT = {"max_len_a": 1.2, "max_len_b": 10}
"""At most a times the source's length plus b pieces: up to fairseq's 200 a few translations repeat themselves."""


def validation(interval: int, beam: int = 1) -> tuple[str, ...]:
    """Dev BLEU every ``interval`` updates, by which the best checkpoint is chosen; one checkpoint is kept beside it.

    fairseq also validates and saves at the end of epochs; the large epoch intervals switch that off, so that all
    students are validated equally often.
    """
    never = "1000000"
    return ("--validate-interval", never, "--save-interval", never, "--validate-interval-updates", str(interval),
            "--save-interval-updates", str(interval), "--keep-interval-updates", "1", "--no-epoch-checkpoints",
            "--eval-bleu", "--eval-bleu-remove-bpe", "sentencepiece", "--eval-bleu-args",
            json.dumps({"beam": beam, **LENGTH_LIMIT}),
            "--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric")


# The embedded corpus: sized for ten minutes on two cores, the whole of it.
# Its teacher sees two windows of each of three short lives of a small student, and is judged by the inverse
# perplexity of clean dev pairs: with likelihood or expected BLEU such windows only teach it to sharpen (RESULTS.md).
DEMO = RecipeSettings(
    model=_transformer(layers=2, width=128, inner=256, heads=4, dropout=0.1),
    training=_adam(3e-3, 200, 1000), validation=validation(600), updates=1200, vocabulary=2000,
    teacher=TeacherSettings(updates=6, unroll_length=140, horizon=300, warmup_updates=20, lr=0.03,
                            objective="inverse-perplexity", dev_batch=128, more=_proxy(1000)))

# Multi30k is small: 3+3 layers of 128 and dropout 0.3 is what does not overfit at once. 600 updates are about four
# epochs, 15 minutes of one core a student; that is short of the plateau.
MULTI30K = RecipeSettings(
    model=_transformer(layers=3, width=128, inner=512, heads=4, dropout=0.3),
    training=_adam(2e-3, 200, 4000), validation=validation(200), updates=600, vocabulary=4000,
    teacher=TeacherSettings(updates=8, unroll_length=140, horizon=300, warmup_updates=20, lr=0.03,
                            objective="inverse-perplexity", dev_batch=128, more=_proxy(1500)))

# fairseq's published recipe (examples/translation/README.md there): transformer_iwslt_de_en, clipping off,
# inverse square root with 4,000 updates of warm-up to 5e-4, dropout 0.3, weight decay 1e-4, batches of 4,096
# tokens, and dev BLEU by beam 5 every epoch (here every 1,000 updates, about an epoch). That recipe names no end;
# 50,000 updates are about 45 epochs.
IWSLT14 = RecipeSettings(
    model=("--arch", "transformer_iwslt_de_en", "--share-decoder-input-output-embed", "--dropout", "0.3"),
    training=_adam(5e-4, 4000, 4096, "--clip-norm", "0.0", "--weight-decay", "0.0001"),
    validation=validation(1000, beam=5), updates=50000, vocabulary=10000,
    teacher=TeacherSettings(updates=40, unroll_length=140, horizon=300, warmup_updates=20, lr=0.03,
                            objective="inverse-perplexity", dev_batch=256,
                            more=_proxy(1500)))

PRESETS = {"demo": DEMO, "multi30k": MULTI30K, "iwslt14": IWSLT14}
