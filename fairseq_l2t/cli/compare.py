"""``l2t-compare``: BLEU and chrF of several systems against a baseline, with paired bootstrap p-values.

Scores, signatures and tests are sacrebleu's own; Koehn (2004), "Statistical Significance Tests for Machine
Translation Evaluation".
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest
from tabulate import tabulate

from fairseq_l2t.cli.one_line_parser import OneLineParser
from fairseq_l2t.storage.atomic import write_atomically

__all__ = ["compare", "main", "read_segments", "table"]

# sacrebleu's own defaults, so that its command line gives the same numbers
_SAMPLES = 1000
_SEED = 12345
_SEED_VARIABLE = "SACREBLEU_SEED"


class BadInput(Exception):
    """A file or option that cannot be compared; the message says which, what it is and what it should be."""


def read_segments(path: str) -> list[str]:
    """The lines of a text file, one segment each; only newlines end a line.

    Raises:
        BadInput: the file is missing, a folder, unreadable, empty or not UTF-8.
    """
    try:
        data = Path(path).read_bytes()
        text = data.decode("utf-8")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: a folder, expected a text file with one segment a line") from None
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: byte {error.start} is not UTF-8 text") from None
    if not text:
        raise BadInput(f"{path}: empty, expected one segment a line")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def compare(
    reference: Sequence[str],
    named_systems: Sequence[tuple[str, Sequence[str]]],
    samples: int = _SAMPLES,
    seed: int = _SEED,
) -> dict:
    """Score systems and test each but the first, the baseline, against it.

    Args:
        reference: one segment an entry.
        named_systems: (name, segments) of the baseline, then of the others; names are distinct.
        samples: bootstrap resamples, at least 1.
        seed: of the resampling, at least 1 (to sacrebleu 0 means a random one).

    Returns:
        ``{"signatures": {metric: text}, "systems": [{"name": ..., metric: {"score", "p_value", "mean",
        "confidence"}}]}``; the baseline's ``p_value`` is None, mean and half-width of the 95 % confidence
        interval are over the resamples.
    """
    metrics = {"BLEU": BLEU(references=[reference]), "CHRF": CHRF(references=[reference])}
    with _sacrebleu_seed(seed):
        test = PairedTest(
            [(name, list(segments)) for name, segments in named_systems],
            metrics,
            references=None,
            test_type="bs",
            n_samples=samples,
        )
        signatures, scores = test()
    systems = []
    for index, name in enumerate(scores.pop("System")):
        results = {metric: column[index] for metric, column in scores.items()}
        systems.append({"name": name, **{metric: _as_plain(result) for metric, result in results.items()}})
    return {"signatures": {metric: str(signature) for metric, signature in signatures.items()}, "systems": systems}


def table(comparison: dict) -> str:
    """The comparison as text: score, difference to the baseline and p-value a metric, then signatures."""
    baseline, metrics = comparison["systems"][0], list(comparison["signatures"])
    rows = [["system"] + [title for metric in metrics for title in (metric, "delta", "p")]]
    for system in comparison["systems"]:
        row = [system["name"]]
        for metric in metrics:
            score, p_value = system[metric]["score"], system[metric]["p_value"]
            if system is baseline:
                row += [f"{score:.2f}", "", ""]
                continue
            delta = score - baseline[metric]["score"]
            # Without any difference sacrebleu's test gives its least p-value, which would read as significant.
            row += [f"{score:.2f}", f"{delta:+.2f}", f"{p_value:.4f}" if delta else "-"]
        rows.append(row)
    lines = tabulate(
        rows, tablefmt="plain", disable_numparse=True, colalign=("left", *["right"] * (len(rows[0]) - 1))
    ).split("\n")
    lines = [line.rstrip() for line in lines]
    lines.append("")
    lines.append(f"delta and p (paired bootstrap) are against {baseline['name']}")
    return "\n".join(lines + [f"{metric}: {text}" for metric, text in comparison["signatures"].items()])


def _as_plain(result) -> dict[str, float | None]:
    p_value = None if result.p_value is None else float(result.p_value)
    return {
        "score": float(result.score),
        "p_value": p_value,
        "mean": float(result.mean),
        "confidence": float(result.ci),
    }


@contextmanager
def _sacrebleu_seed(seed: int) -> Iterator[None]:
    """The environment variable is the only way to seed sacrebleu's tests."""
    before = os.environ.get(_SEED_VARIABLE)
    os.environ[_SEED_VARIABLE] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SEED_VARIABLE]
        else:
            os.environ[_SEED_VARIABLE] = before


def _read_all(options: argparse.Namespace) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The reference and the named systems, as many segments each."""
    if options.samples < 1:
        raise BadInput(f"--samples: {options.samples}, expected at least 1")
    if options.seed < 1:
        raise BadInput(f"--seed: {options.seed}, expected at least 1 (0 would be random to sacrebleu)")
    reference = read_segments(options.ref)
    if not any(line.strip() for line in reference):
        raise BadInput(f"{options.ref}: only blank lines, expected one reference a line")
    paths = [options.baseline, *options.systems]
    systems = [read_segments(path) for path in paths]
    for path, segments in zip(paths, systems, strict=True):
        if len(segments) != len(reference):
            raise BadInput(f"{options.ref} has {len(reference)} lines, {path} has {len(segments)}; expected as many")
    return reference, list(zip(_names(paths), systems, strict=True))


def _names(paths: Sequence[str]) -> list[str]:
    """File names where they tell the systems apart, else the paths as they were given.

    Raises:
        BadInput: a path is given twice.
    """
    if len(set(paths)) < len(paths):
        twice = next(path for index, path in enumerate(paths) if path in paths[:index])
        raise BadInput(f"{twice}: given twice, expected a baseline and other systems")
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="l2t-compare",
        description="Compare systems with a baseline by sacrebleu: "
        "BLEU, chrF, signatures and paired bootstrap p-values.",
    )
    parser.add_argument("--ref", required=True, metavar="FILE", help="references, one segment a line")
    parser.add_argument("--baseline", required=True, metavar="FILE", help="its detokenised hypotheses")
    parser.add_argument("--systems", required=True, nargs="+", metavar="FILE", help="those of the others")
    parser.add_argument("--json", metavar="FILE", help="also write the unrounded numbers here")
    parser.add_argument("--samples", type=int, default=_SAMPLES, help="resamples (default %(default)s)")
    parser.add_argument("--seed", type=int, default=_SEED, help="of the resampling (default %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        reference, systems = _read_all(options)
        comparison = compare(reference, systems, options.samples, options.seed)
        print(table(comparison))
        if options.json:
            write_atomically(options.json, [json.dumps(comparison, indent=2).encode() + b"\n"])
    except BadInput as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
