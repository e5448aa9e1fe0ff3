import dataclasses
import struct
import warnings

import numpy as np
import pytest

from fairseq_l2t.core import LossShape
from fairseq_l2t.inspection import WordWeights, read_training_log
from tests.inspection.files import log_line, write_log

plots = pytest.importorskip("fairseq_l2t.inspection.plots")


def size(path):
    raw = path.read_bytes()
    assert raw.startswith(b"\x89PNG\r\n\x1a\n")
    assert raw.endswith(b"IEND\xaeB`\x82")
    return struct.unpack(">II", raw[16:24])


def weights(words=("a", "$x$", "_b", "東京", "ab" * 20), flat=False):
    progress = np.linspace(0, 1, 11)
    slopes = np.zeros(len(words)) if flat else np.linspace(-0.05, 0.05, len(words))
    coefficients = 0.1 + progress[:, None] * slopes
    return WordWeights(progress, words, np.full(len(words), 5), coefficients, LossShape(40.0))


@pytest.mark.parametrize("flat", [False, True])
def test_plots_of_coefficients(tmp_path, flat):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.plot_coefficients(tmp_path / "phi.png", weights(flat=flat), cross_entropy_until=0.1)
        plots.plot_words(tmp_path / "words.png", weights(flat=flat))
    assert min(size(tmp_path / "phi.png")) > 500
    assert min(size(tmp_path / "words.png")) > 200


def test_same_input_same_bytes(tmp_path):
    for name in ("first.png", "second.png"):
        plots.plot_words(tmp_path / name, weights())
    plots.plot_words(tmp_path / "control.png", weights(flat=True))
    first, second, control = ((tmp_path / f"{name}.png").read_bytes() for name in ("first", "second", "control"))
    assert first == second
    assert first != control


@pytest.mark.parametrize(
    "lines",
    [
        None,
        [log_line(0, 0.0)],
        [log_line(0, 0.0, hypergradient_norm=0.0, adjoint_norm=None), log_line(1, 0.5, measure=float("nan"))],
        [{"teacher_update": 0}, {"teacher_update": 1}],
    ],
)
def test_plots_of_training(tmp_path, lines):
    log = read_training_log(write_log(tmp_path / "log", lines))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.plot_training(tmp_path / "training.png", log)
    assert min(size(tmp_path / "training.png")) > 500


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0.1, 0.5, 0.9], [0.1, 0.5, 0.9]),
        ([0.5, 0.1, 0.5], [0.5, 0.1, 0.6]),
        ([0.95, 1.0], [0.9, 1.0]),
        ([], []),
    ],
)
def test_labels_are_moved_apart(places, expected):
    np.testing.assert_allclose(plots._spread(np.array(places), 0.1), expected)


def test_smoothing_is_drawn(tmp_path):
    plain = weights()
    smoothed = dataclasses.replace(plain, smoothing=0.05 + 0.02 * plain.progress)
    for name, given in (("plain", plain), ("smoothed", smoothed)):
        plots.plot_coefficients(tmp_path / name, given)
        assert min(size(tmp_path / name)) > 500
    assert (tmp_path / "plain").read_bytes() != (tmp_path / "smoothed").read_bytes()
