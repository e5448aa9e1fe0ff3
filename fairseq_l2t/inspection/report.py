"""A report on a teacher as text: the weights of words at stages of a student's life."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from fairseq_l2t.inspection.stages import PROGRESS, StateSource
from fairseq_l2t.inspection.text_table import columns, fit, printable
from fairseq_l2t.inspection.weights import Floats, Indices, WordWeights
from fairseq_l2t.storage import TeacherFile

__all__ = ["format_report"]

_WORD_COLUMNS = 12
"""Terminal columns for a word in the lists per stage; longer words are cut."""
_MOVER_COLUMNS = 18
"""The same in the list of words whose weight changes most."""
_LINE_COLUMNS = 100
_SMALLEST_CHANGE_SHOWN = 0.01
"""Smaller changes of weight count as none: 1 % of the pull of cross-entropy."""
_NAMED_WORDS = 5
"""Words named in a sentence."""


def format_report(
    teacher_file: TeacherFile, source: StateSource, weights: WordWeights, *, top: int, rare_below: int
) -> str:
    """Return the report.

    Args:
        teacher_file: the teacher.
        source: the states and their source.
        weights: weights at the stages to show.
        top: number of words per list.
        rare_below: words with fewer occurrences in the training text get an asterisk.
    """
    sections = [
        _facts(teacher_file, source),
        _stages(source, weights),
        _in_words(weights),
        *_word_lists(weights, top, rare_below),
        _movers(weights, top, rare_below),
        _legend(rare_below),
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _facts(teacher_file: TeacherFile, source: StateSource) -> list[str]:
    settings, teacher = teacher_file.settings, teacher_file.teacher
    smoothed = teacher.form == "smoothed"
    argument = "Phi * log p + psi * mean log p of all words" if smoothed else "Phi * log p"
    if settings.loss_level == "sentence":
        argument = f"mean of {argument} over the sentence"
    loss = f"-{settings.loss_scale:g} * sigmoid({argument}) per target token"
    if settings.cross_entropy_mix:
        loss += f", mixed with {100 * settings.cross_entropy_mix:g} % cross-entropy"
    life = f"{settings.total_updates} updates"
    if settings.cross_entropy_updates:
        share = settings.cross_entropy_updates / settings.total_updates
        life += f"; the first {settings.cross_entropy_updates} (to progress {share:.2g}) with plain cross-entropy"
    fingerprint = teacher_file.vocabulary.sha256[:16]
    facts = {
        "coefficients": f"{teacher.form} Phi, from {teacher.keys} keys",
        "vocabulary": f"{teacher.entries} target entries, fingerprint {fingerprint}...",
        "student state": ", ".join(teacher.features),
        "student's loss": loss,
        "student's life": life,
        "objective": str(settings.extra.get("objective", "not recorded")),
        "training": _training(settings.extra),
        "states below": source.description,
    }
    lines = [f"Teacher {teacher_file.path}"]
    for name, fact in facts.items():
        lines += _wrap(fact, f"  {name:<16}")
    return lines


def _training(extra: dict[str, Any]) -> str:
    # Only short values: lists (seeds, states) and the command line would hide the others.
    shown = {
        name: value
        for name, value in extra.items()
        if name != "objective" and isinstance(value, (str, int, float)) and len(str(value)) <= 40
    }
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in sorted(shown.items())) or "not recorded"


def _stages(source: StateSource, weights: WordWeights) -> list[str]:
    states, phi, weight = source.at(weights.progress), weights.coefficients, weights.weights
    rows = [["progress (0 start, 1 end)", *(f"{value:.2f}" for value in weights.progress)]]
    for feature, values in zip(source.features, states.T, strict=True):
        if feature != PROGRESS:
            rows.append([f"state: {feature}", *(f"{value:.3f}" for value in values)])
    for name, values in (("mean", phi.mean(1)), ("lowest", phi.min(1)), ("highest", phi.max(1))):
        rows.append([f"Phi, {name} over the words", *(f"{value:.4f}" for value in values)])
    rows.append(["weight, mean over the words", *(f"{value:.3f}" for value in weight.mean(1))])
    in_text = _mean_in_text(weights)
    if in_text is not None:
        rows.append(["weight, mean in running text", *(f"{value:.3f}" for value in in_text)])
    lowest, highest = np.percentile(weight, [5, 95], axis=1)
    spread = [f"{low:.2f}-{high:.2f}" for low, high in zip(lowest, highest, strict=True)]
    rows.append(["weight of 90 % of the words", *spread])
    if weights.smoothing is not None:
        rows.append(["psi, of all words", *(f"{value:.4f}" for value in weights.smoothing)])
    if weights.smoothing_weights is not None:
        rows.append(["weight of all words", *(f"{value:.3f}" for value in weights.smoothing_weights)])
    return ["Stages of a student's life", *columns(rows, "l" + "r" * len(weights.progress))]


def _mean_in_text(weights: WordWeights) -> Floats | None:
    """Mean weight over the occurrences in the training text, (stages,); None without counts."""
    known = np.clip(weights.counts, 0, None)
    mean: Floats | None = weights.weights @ known / known.sum() if known.sum() > 0 else None
    return mean


def _in_words(weights: WordWeights) -> list[str]:
    weight, change = weights.weights, weights.change
    first, last = weights.progress[0], weights.progress[-1]
    sentences = []
    largest = float(np.abs(change).max())
    if len(weights.progress) < 2:
        sentences.append("Only one stage: nothing to compare.")
    elif largest < _SMALLEST_CHANGE_SHOWN:
        sentences.append(
            f"The loss hardly changes during a life: from progress {first:g} to {last:g} no weight changes by "
            f"more than {largest:.2g} (1 is the weight under cross-entropy)."
        )
    else:
        sentences.append(
            f"From progress {first:g} to {last:g} the mean weight of a word changes from "
            f"{weight[0].mean():.2f} to {weight[-1].mean():.2f} (1 is the weight under cross-entropy)."
        )
        sentences += _named_movers(weights)
    low, high = np.percentile(weight[-1], [5, 95])
    if high - low < _SMALLEST_CHANGE_SHOWN:
        sentences.append("At the last stage nearly all words have the same weight.")
    smoothing = weights.smoothing_weights
    if smoothing is not None:
        shares = [value / (value + mean) for value, mean in zip(smoothing, weight.mean(1), strict=True)]
        sentences.append(
            f"All words together have weight {smoothing[0]:.2f} at progress {first:g} and {smoothing[-1]:.2f} at "
            f"{last:g}, {100 * shares[0]:.0f} % and {100 * shares[-1]:.0f} % of the total (E in label smoothing)."
        )
    negative = int((weight[-1] < 0).sum())
    if negative:
        sentences.append(
            f"{negative} of {len(weights.words)} words end with a weight below 0: the loss makes them less likely."
        )
    return [
        "In words",
        *_wrap(" ".join(sentences), "  "),
    ]


def _named_movers(weights: WordWeights) -> list[str]:
    change, weight = weights.change, weights.weights
    sentences = []
    for verb, order, sign in zip(("gain", "lose"), weights.ranked(change, _NAMED_WORDS), (1, -1), strict=True):
        moved = [index for index in order if sign * change[index] >= _SMALLEST_CHANGE_SHOWN]
        if moved:
            named = ", ".join(
                f"{printable(weights.words[index])} ({weight[0, index]:.2f} to {weight[-1, index]:.2f})"
                for index in moved
            )
            sentences.append(f"The words that {verb} most: {named}.")
        else:
            sentences.append(f"No word {verb}s {_SMALLEST_CHANGE_SHOWN:g} or more.")
    return sentences


def _word_lists(weights: WordWeights, top: int, rare_below: int) -> list[list[str]]:
    ranked = [weights.ranked(row, top) for row in weights.weights]
    titles = (
        f"Most weighted words at each stage ({len(weights.words)} words; word and weight)",
        "Least weighted words at each stage",
    )
    return [
        _word_list(title, weights, [pair[side] for pair in ranked], rare_below) for side, title in enumerate(titles)
    ]


def _word_list(title: str, weights: WordWeights, orders: Sequence[Indices], rare_below: int) -> list[str]:
    rows = [["", *(cell for value in weights.progress for cell in (f"at {value:.2f}", ""))]]
    for rank in range(len(orders[0])):
        row = [str(rank + 1)]
        for stage, order in enumerate(orders):
            index = order[rank]
            row += [_word(weights, index, _WORD_COLUMNS, rare_below), f"{weights.weights[stage, index]:.2f}"]
        rows.append(row)
    return [title, *columns(rows, "r" + "lr" * len(orders))]


def _movers(weights: WordWeights, top: int, rare_below: int) -> list[str]:
    title = "Words whose weight changes most: gains, then losses"
    if len(weights.progress) < 2:
        return [f"{title}: one stage only, nothing to compare"]
    change, weight = weights.change, weights.weights
    rows = [["word", "count", *(f"at {value:.2f}" for value in weights.progress), "change"]]
    for order in weights.ranked(change, top):
        for index in order:
            count = "?" if weights.counts[index] < 0 else str(weights.counts[index])
            word = _word(weights, index, _MOVER_COLUMNS, rare_below)
            rows.append([word, count, *(f"{value:.2f}" for value in weight[:, index]), f"{change[index]:+.2f}"])
        rows.append([""] * len(rows[0]))
    return [title, *columns(rows[:-1], "l" + "r" * (len(rows[0]) - 1))]


def _word(weights: WordWeights, index: np.int64, width: int, rare_below: int) -> str:
    """Return a word as a table shows it, with an asterisk if it is rare."""
    mark = "*" if 0 <= weights.counts[index] < rare_below else ""
    return fit(weights.words[index], width) + mark


def _legend(rare_below: int) -> list[str]:
    text = (
        "weight: derivative of the loss at a token that the student finds likely, relative to plain cross-entropy: "
        "mix + (1 - mix) * scale * Phi / 4. 1: as cross-entropy; 2: twice as much; 0: ignored; below 0: made less "
        "likely. The less likely the token, the smaller the derivative of the sigmoid. "
        f"*: fewer than {rare_below} occurrences in the training text, so the word's weight is based on few examples. "
        "▁: SentencePiece's mark for the beginning of a word."
    )
    return _wrap(text)


def _wrap(text: str, start: str = "") -> list[str]:
    # Do not break "cross-entropy" or a path.
    return textwrap.wrap(
        text,
        _LINE_COLUMNS,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_on_hyphens=False,
        break_long_words=False,
    )
