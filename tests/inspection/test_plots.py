import dataclasses
import struct
import warnings

import numpy as np
import pytest
import torch

from fairseq_l2t.core import LossShape, Teacher
from fairseq_l2t.inspection import WordWeights, read_training_log
from tests.inspection.files import log_line, write_log

plots = pytest.importorskip("fairseq_l2t.inspection.plots")
training_plot = pytest.importorskip("fairseq_l2t.inspection.training_plot")
classifier_plots = pytest.importorskip("fairseq_l2t.inspection.classifier_plots")


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
        training_plot.plot_training(tmp_path / "training.png", log)
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


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, in order; none is written."""
    figures = []
    for module in (plots, training_plot, classifier_plots):
        monkeypatch.setattr(module, "save_figure", lambda figure, path: figures.append(figure))
    return figures


def panels(figure):
    """{title: axes} of the panels of a figure."""
    titles = ((axes.get_title("left") or axes.get_title(), axes) for axes in figure.axes)
    return {title: axes for title, axes in titles if title}


def test_teacher_updates_are_whole_numbers_from_0_on(tmp_path, drawn):
    lines = [log_line(update, 0.5, holdout_measure=0.3, student_life=update) for update in (1, 2, 3)]
    lines[0]["initial_holdout_measure"] = 0.25
    log = read_training_log(write_log(tmp_path / "log", lines))
    training_plot.plot_training(tmp_path / "x.png", log)
    training_plot.plot_training(tmp_path / "x.png", log, judged_after=False)
    for figure, judged in zip(drawn, ([0, 1, 2, 3], [0, 0, 1, 2]), strict=True):
        found = panels(figure)
        assert len(found) == 6  # a measure or norm shares its panel with no other
        for axes in found.values():
            low, high = axes.get_xlim()
            ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
            assert ticks == [0, 1, 2, 3]
        measure = found["measure on the dev pairs for training, after a window"]
        assert sorted(line.get_xdata()[0] for line in measure.lines) == [0, 1, 2]
        (line,) = found["measure on the held-back dev pairs, which selects the teacher"].lines
        assert line.get_xdata().tolist() == judged and line.get_ydata()[0] == 0.25


def test_psi_is_named_and_has_a_panel_of_its_own(tmp_path, drawn):
    plain = weights()
    plots.plot_coefficients(tmp_path / "x.png", plain)
    plots.plot_coefficients(tmp_path / "x.png", dataclasses.replace(plain, smoothing=5 + plain.progress))
    without, smoothed = map(panels, drawn)
    (psi,) = smoothed.keys() - without.keys()
    assert psi.startswith("psi: coefficient of the mean log-probability")
    (name,) = without
    assert smoothed[name].get_ylim() == without[name].get_ylim()  # psi, larger, does not flatten Phi


def test_phi_of_a_classifier_is_a_heat_map_with_its_diagonal_beside_it(tmp_path, drawn):
    names = ["cat", "dog", "frog"]
    teacher = Teacher(("progress",), 3, keys=1, form="full")
    with torch.no_grad():
        teacher.values.copy_(torch.arange(9.0).view(-1, 1))
    classifier_plots.plot_rows(tmp_path / "x.png", teacher, names, [0, 2], [{"progress": 0.0}, {"progress": 1.0}])
    found = panels(drawn[0])
    (phi,) = found["progress 100%"].images
    np.testing.assert_array_equal(phi.get_array().filled(np.nan), [[np.nan, 1, 2], [6, 7, np.nan]])
    (own,) = found["diagonal Phi(i, i)"].images
    np.testing.assert_array_equal(own.get_array(), [[0, 0], [8, 8]])
    labels = found["progress 0%"]
    assert [text.get_text() for text in labels.get_xticklabels()] == names
    assert [text.get_text() for text in labels.get_yticklabels()] == ["cat", "frog"]


def test_a_hundred_classes_are_named_in_part(tmp_path, drawn):
    teacher = Teacher(("progress",), 100, keys=1, form="full")
    names = [f"class {number}" for number in range(100)]
    classifier_plots.plot_rows(tmp_path / "x.png", teacher, names, range(100), [{"progress": 0.0}])
    assert len(panels(drawn[0])["progress 0%"].get_xticklabels()) == 25
