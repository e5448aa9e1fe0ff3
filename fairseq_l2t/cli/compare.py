"""``l2t-compare``: BLEU and chrF of several systems against a baseline, with p-values of the paired bootstrap test.

Scores, signatures and tests are sacrebleu's. The test is that of Koehn (2004), "Statistical Significance Tests for
Machine Translation Evaluation".
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest, Result
from tabulate import tabulate

from fairseq_l2t.cli.entry import drop_output, end_output, version_of
from fairseq_l2t.cli.one_line_parser import OneLineParser
from fairseq_l2t.objectives.bleu_tokenizers import why_unfit, why_unusable
from fairseq_l2t.pairs.parallel_text import BadInput
from fairseq_l2t.storage.atomic import write_atomically

__all__ = ["compare", "main", "read_segments", "table"]

# The defaults of the command sacrebleu, which then gives the same numbers.
_SAMPLES = 1000
_SEED = 12345
_SEED_VARIABLE = "SACREBLEU_SEED"


def read_segments(path: str) -> list[str]:
    """Return the segments of a text file, one per line; only newlines end a line.

    Raises:
        BadInput: the file is missing, a folder, unreadable, empty or not UTF-8.
    """
    try:
        data = Path(path).read_bytes()
        text = data.decode("utf-8")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: a folder, expected a text file with one segment per line") from None
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: byte {error.start} is not UTF-8 text") from None
    if not text:
        raise BadInput(f"{path}: empty, expected one segment per line")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def compare(
    references: Sequence[Sequence[str]],
    named_systems: Sequence[tuple[str, Sequence[str]]],
    samples: int = _SAMPLES,
    seed: int = _SEED,
    tokenize: str = BLEU.TOKENIZER_DEFAULT,
) -> dict[str, Any]:
    """Score systems and test each against the first, the baseline.

    Args:
        references: one or more sets of reference segments, each with one segment for each segment of a system.
        named_systems: (name, segments) of the baseline, then of the other systems; names are distinct.
        samples: number of bootstrap resamples, at least 1.
        seed: seed of the resampling, at least 1 (sacrebleu takes 0 as a random seed).
        tokenize: sacrebleu's tokenizer for BLEU; chrF uses none.

    Returns:
        ``{"signatures": {metric: text}, "systems": [{"name": ..., metric: {"score", "p_value", "mean",
        "confidence"}}]}``; the baseline's ``p_value`` is None, mean and half-width of the 95 % confidence
        interval are over the resamples.

    Raises:
        ValueError: a set of references of another length than a system; sacrebleu would leave the rest out.
    """
    lengths = [len(segments) for segments in [*references, *(segments for _, segments in named_systems)]]
    if len(set(lengths)) > 1 or any(isinstance(one, str) for one in references):
        raise ValueError(
            f"references, systems: {', '.join(map(str, lengths))} segments; expected sets of segments, all equally long"
        )
    metrics = {"BLEU": BLEU(references=references, tokenize=tokenize), "CHRF": CHRF(references=references)}
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
        plain = {metric: _as_plain(result) for metric, result in results.items() if isinstance(result, Result)}
        systems.append({"name": name, **plain})
    return {"signatures": {metric: str(signature) for metric, signature in signatures.items()}, "systems": systems}


def table(comparison: dict[str, Any]) -> str:
    """Return a comparison as text: score, difference to the baseline and p-value per metric, then signatures."""
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
            # For equal scores sacrebleu's test gives its lowest p-value, which would look significant.
            row += [f"{score:.2f}", f"{delta:+.2f}", f"{p_value:.4f}" if delta else "-"]
        rows.append(row)
    sides = ("left", *["right"] * (len(rows[0]) - 1))
    text = tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=sides)
    lines = [line.rstrip() for line in text.split("\n")]
    lines.append("")
    lines.append(f"delta and p (paired bootstrap) are against {baseline['name']}")
    return "\n".join(lines + [f"{metric}: {text}" for metric, text in comparison["signatures"].items()])


def _as_plain(result: Result) -> dict[str, float | None]:
    """Return a result as numbers that JSON can hold; sacrebleu's are NumPy's in part."""
    values = {"score": result.score, "p_value": result.p_value, "mean": result.mean, "confidence": result.ci}
    return {name: None if value is None else float(value) for name, value in values.items()}


@contextmanager
def _sacrebleu_seed(seed: int) -> Iterator[None]:
    """Set the seed of sacrebleu's tests, which read it from an environment variable only."""
    before = os.environ.get(_SEED_VARIABLE)
    os.environ[_SEED_VARIABLE] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SEED_VARIABLE]
        else:
            os.environ[_SEED_VARIABLE] = before


def _read_all(options: argparse.Namespace) -> tuple[list[list[str]], list[tuple[str, list[str]]]]:
    """Return the sets of references and the named systems, all with the same number of segments."""
    if options.samples < 1:
        raise BadInput(f"--samples: {options.samples}, expected at least 1")
    if options.seed < 1:
        raise BadInput(f"--seed: {options.seed}, expected at least 1 (sacrebleu takes 0 as a random seed)")
    references = _read_references(options.ref, options.num_refs)
    paths = [options.baseline, *options.systems]
    systems = [read_segments(path) for path in paths]
    _require_equal_lengths([options.ref[0], *paths], [references[0], *systems])
    return references, list(zip(_names(paths), systems, strict=True))


def _read_references(paths: Sequence[str], count: int) -> list[list[str]]:
    """Return the sets of references: one for each file, or ``count``, from the columns of one file."""
    if count < 1:
        raise BadInput(f"--num-refs: {count}, expected at least 1")
    if count > 1 and len(paths) > 1:
        raise BadInput(f"--num-refs: {count}, expected one file of references, {len(paths)} are given (--ref)")
    files = [read_segments(path) for path in paths]
    for path, lines in zip(paths, files, strict=True):
        if not any(line.strip() for line in lines):
            raise BadInput(f"{path}: only blank lines, expected one reference per line")
    _require_equal_lengths(paths, files)
    if count == 1:
        return files
    rows = [line.rstrip().split("\t", count - 1) for line in files[0]]
    for number, row in enumerate(rows, 1):
        if len(row) != count:
            raise BadInput(f"{paths[0]}: line {number} has {len(row)} references, expected {count} (--num-refs)")
    return [list(column) for column in zip(*rows, strict=True)]


def _require_equal_lengths(paths: Sequence[str], files: Sequence[Sequence[str]]) -> None:
    for path, lines in zip(paths, files, strict=True):
        if len(lines) != len(files[0]):
            raise BadInput(
                f"{paths[0]} has {len(files[0])} lines, {path} has {len(lines)}; expected equal numbers of lines"
            )


def _names(paths: Sequence[str]) -> list[str]:
    """Return the file names, or the paths as given where file names are equal.

    Raises:
        BadInput: a path is given twice.
    """
    if len(set(paths)) < len(paths):
        twice = next(path for index, path in enumerate(paths) if path in paths[:index])
        raise BadInput(f"{twice}: given twice, expected different files")
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="l2t-compare",
        description="Compare systems with a baseline by BLEU and chrF (sacrebleu), with signatures and p-values of "
        "the paired bootstrap test.",
    )
    parser.add_argument("--version", action="version", version=version_of(parser.prog))
    parser.add_argument(
        "--ref",
        required=True,
        nargs="+",
        metavar="FILE",
        help="references, one segment per line; several files are several references of each segment",
    )
    parser.add_argument(
        "--num-refs",
        type=int,
        default=1,
        metavar="N",
        help="number of references in each line of the file of references, separated by tabs (default: %(default)s)",
    )
    parser.add_argument("--baseline", required=True, metavar="FILE", help="detokenised hypotheses of the baseline")
    parser.add_argument(
        "--systems", required=True, nargs="+", metavar="FILE", help="detokenised hypotheses of the other systems"
    )
    parser.add_argument(
        "--tokenize",
        choices=list(BLEU.TOKENIZERS),
        default=BLEU.TOKENIZER_DEFAULT,
        help="sacrebleu's tokenizer for BLEU: zh for Chinese, ja-mecab for Japanese, ko-mecab for Korean, char for "
        "other scripts without spaces (default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the unrounded numbers to FILE")
    parser.add_argument(
        "--samples", type=int, default=_SAMPLES, help="number of bootstrap resamples (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=_SEED, help="seed of the resampling (default: %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        references, systems = _read_all(options)
        if reason := why_unusable(options.tokenize):
            raise BadInput(f"--tokenize: {options.tokenize} {reason}")
        if reason := why_unfit(options.tokenize, references[0]):
            print(f"{parser.prog}: warning: --tokenize {reason}; its BLEU says little", file=sys.stderr)
        comparison = compare(references, systems, options.samples, options.seed, options.tokenize)
        print(table(comparison))
        if options.json:
            write_atomically(options.json, [json.dumps(comparison, indent=2).encode() + b"\n"])
    except BadInput as error:
        parser.error(str(error))
    except BrokenPipeError:  # the reader of stdout has gone, as in `l2t-compare ... | head`
        return drop_output()
    except OSError as error:
        if error.filename is None:
            drop_output()
        parser.error(f"{error.filename or 'standard output'}: {error.strerror}")
    return end_output("l2t-compare", 0)


if __name__ == "__main__":
    sys.exit(main())
