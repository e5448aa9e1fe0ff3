"""Drawing hypotheses and scoring them, on models of four words whose hypotheses can be listed."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.tasks.translation import TranslationTask

from fairseq_l2t.checks.float64 import KeepFloat64
from fairseq_l2t.core import NonFiniteError
from fairseq_l2t.objectives import Hypotheses
from fairseq_l2t.plugin.student import sampling
from fairseq_l2t.plugin.student.sampling import draw_hypotheses, score_hypotheses
from fairseq_l2t.testing.fairseq_reference import configuration
from fairseq_l2t.testing.tiny_students import FAMILIES, OPTIMIZERS, RECIPE

WORDS = ["a", "b"]
LONGEST = 3
TESTED = ["transformer_tied", "lstm", "fconv_iwslt"]


@dataclass
class Tiny:
    """A model in eval mode, in float64, with two sources of different length."""

    model: Any
    dictionary: Dictionary
    net_input: dict[str, torch.Tensor]

    def every_hypothesis(self) -> list[tuple[int, ...]]:
        """Return all that can be drawn: ended within `LONGEST` tokens, or cut there."""
        end = self.dictionary.eos()
        others = [word for word in range(len(self.dictionary)) if word not in (end, self.dictionary.pad())]
        ended = [(*words, end) for n in range(LONGEST) for words in itertools.product(others, repeat=n)]
        return ended + list(itertools.product(others, repeat=LONGEST))

    def step_by_step(self, source: int, tokens: tuple[int, ...]) -> float:
        """Return log p by one full forward pass a token, the source alone, without padding."""
        length = int(self.net_input["src_lengths"][source])
        # fairseq pads sources on the left
        words = self.net_input["src_tokens"][source : source + 1, -length:]
        prefix, total = [self.dictionary.eos()], 0.0
        for token in tokens:
            output = self.model(words, torch.tensor([length]), torch.tensor([prefix]))
            probs = self.model.get_normalized_probs(output, log_probs=False)[0, -1].detach()
            total += math.log(float(probs[token]) / (1 - float(probs[self.dictionary.pad()])))
            prefix.append(token)
        return total


def make_tiny(data_bin, family) -> Tiny:
    dictionary = Dictionary()
    for word in WORDS:
        dictionary.add_symbol(word)
    cfg = configuration([str(data_bin), *FAMILIES[family], *OPTIMIZERS["nag"], *RECIPE])
    task = TranslationTask(cfg.task, dictionary, dictionary)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = task.build_model(cfg.model).double().eval()
        for parameter in model.parameters():
            # far from uniform, so that a wrong order or a wrong source would show
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    end, pad = dictionary.eos(), dictionary.pad()
    first, second = dictionary.index("a"), dictionary.index("b")
    # longest first, as fairseq collates them
    sources = torch.tensor([[second, second, first, end], [pad, pad, first, end]])
    return Tiny(model, dictionary, {"src_tokens": sources, "src_lengths": torch.tensor([4, 2])})


@pytest.fixture(scope="module", params=TESTED)
def tiny(data_bin, request):
    with KeepFloat64():
        yield make_tiny(data_bin, request.param)


def draw(tiny, samples, seed=0, longest=(LONGEST, LONGEST)):
    generator = torch.Generator().manual_seed(seed)
    return draw_hypotheses(tiny.model, tiny.net_input, samples, generator, longest, tiny.dictionary)


def score(tiny, owner, tokens):
    return score_hypotheses(tiny.model, tiny.net_input, Hypotheses(owner, tokens), tiny.dictionary)


def test_scores_are_step_by_step_probabilities(tiny):
    tokens = tiny.every_hypothesis()
    for source in (0, 1):
        found = score(tiny, [source] * len(tokens), tokens).detach()
        assert float(found.exp().sum()) == pytest.approx(1, abs=1e-12)
        for hypothesis, value in list(zip(tokens, found.tolist(), strict=True))[::7]:
            assert value == pytest.approx(tiny.step_by_step(source, hypothesis), abs=1e-10)
    # the control: the sources are told apart
    assert (score(tiny, [0] * len(tokens), tokens) - found).abs().max() > 1e-2


def test_draws_follow_the_probabilities(tiny):
    tokens, samples = tiny.every_hypothesis(), 6000
    rows = draw(tiny, samples)
    for source in (0, 1):
        probs = score(tiny, [source] * len(tokens), tokens).detach().exp()
        counts = torch.tensor([float(rows[source].count(hypothesis)) for hypothesis in tokens])
        assert int(counts.sum()) == samples  # nothing else was drawn
        assert chi_square_excess(counts, probs * samples) < 3.1
        # the control: draws of the other source do not fit
        other = score(tiny, [1 - source] * len(tokens), tokens).detach().exp()
        assert chi_square_excess(counts, other * samples) > 6


def chi_square_excess(counts, expected):
    """Return how many standard deviations chi-square lies above its mean; above 3.1: 1 in 1,000 (Wilson-Hilferty)."""
    often = expected >= 5  # the usual rule; the rest is one cell
    if not bool(often.all()):
        counts = torch.cat([counts[often], counts[~often].sum().view(1)])
        expected = torch.cat([expected[often], expected[~often].sum().view(1)])
    statistic, freedom = float(((counts - expected) ** 2 / expected).sum()), len(expected) - 1
    spread = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1 - spread)) / spread**0.5


@pytest.mark.parametrize("shrink_below", [0.0, 1.0])
def test_incremental_drawing_agrees_with_scoring(tiny, monkeypatch, shrink_below):
    # With every row that ends leaving at once, and with all of them kept until the last has ended.
    steps, choose = [], sampling._choose

    def recorded(probs, numbers, padding):
        token, drawable = choose(probs, numbers, padding), probs.clone()
        drawable[:, padding] = 0
        steps.append((drawable / drawable.sum(-1, keepdim=True)).gather(1, token.unsqueeze(1)).log().squeeze(1))
        return token

    monkeypatch.setattr(sampling, "_choose", recorded)
    monkeypatch.setattr(sampling, "_UNFINISHED_SHARE", shrink_below)
    flat = [tokens for row in draw(tiny, 20, longest=(8, 8)) for tokens in row]
    found, rows = [0.0] * len(flat), list(range(len(flat)))
    for number, step in enumerate(steps):
        unfinished = [row for row in rows if len(flat[row]) > number]
        if shrink_below:
            rows = unfinished
        assert len(step) == len(rows)
        for row in unfinished:
            found[row] += float(step[rows.index(row)])
    scores = score(tiny, [0] * 20 + [1] * 20, flat).detach()
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), scores, rtol=1e-10, atol=1e-10)
    assert len({len(tokens) for tokens in flat}) > 2
    assert (scores - scores.flip(0)).abs().max() > 1e-2


def test_rows_that_leave_change_no_draw(tiny, monkeypatch):
    rows = draw(tiny, 200, longest=(12, 9))
    monkeypatch.setattr(sampling, "_UNFINISHED_SHARE", 0.0)
    assert draw(tiny, 200, longest=(12, 9)) == rows
    # the control: states that do not follow their rows
    monkeypatch.setattr(sampling, "_UNFINISHED_SHARE", 1.0)
    monkeypatch.setattr(tiny.model.decoder, "reorder_incremental_state_scripting", _first_rows(tiny.model.decoder))
    assert draw(tiny, 200, longest=(12, 9)) != rows


def _first_rows(decoder):
    right = decoder.reorder_incremental_state_scripting
    return lambda state, order: right(state, torch.arange(len(order)))


def test_each_source_has_its_own_limit(tiny):
    rows = draw(tiny, 100, longest=(2, 6))
    assert [max(len(tokens) for tokens in row) for row in rows] == [2, 6]
    # up to there, draws are those without the limit
    free = draw(tiny, 100, longest=(6, 6))
    assert rows[0] == [tokens[:2] for tokens in free[0]] != free[0]
    assert rows[1] == free[1]
    assert draw(tiny, 3, longest=(0, 2))[0] == [()] * 3


def test_a_number_chooses_by_the_cumulative_sum():
    probs = torch.tensor([[0.0, 0.25, 0.5, 0.25, 0.0]]).repeat(5, 1)
    numbers = 1 - torch.tensor([2.0**-53, 0.25, 0.25 + 2.0**-50, 0.75, 1.0], dtype=torch.float64)
    assert sampling._choose(probs, numbers, padding=4).tolist() == [1, 1, 2, 2, 3]
    # without the padding symbol, among what remains
    assert sampling._choose(probs, numbers, padding=2).tolist() == [1, 1, 1, 3, 3]


def test_rare_symbols_are_drawn():
    # float32 sums, or float32 numbers of 24 bits, would lose the many that share one part in a million.
    probs = torch.full((1, 20_001), 1e-6 / 20_000)
    probs[0, 0] = 1 - 1e-6
    numbers = torch.linspace(0, 1e-6, 1000, dtype=torch.float64)[:-1]
    found = sampling._choose(probs.repeat(999, 1), numbers, padding=20_000)
    assert len(set(found.tolist())) > 900
    # the control: the same in float32
    assert len(set(torch.searchsorted(probs.cumsum(1), (1 - numbers).float().unsqueeze(0))[0].tolist())) < 100


def test_probabilities_that_are_not_finite(tiny):
    parameter = next(tiny.model.decoder.parameters())
    before = parameter.detach().clone()
    try:
        parameter.data.fill_(float("nan"))
        with pytest.raises(NonFiniteError, match="drawing hypotheses"):
            draw(tiny, 2)
    finally:
        parameter.data.copy_(before)
    assert draw(tiny, 2)


def test_padding_is_bounded():
    lengths = [40, 40, 30, 9, 3, 3, 2] + [1] * 80
    batches = list(sampling._of_similar_length([(5,) * length for length in lengths]))
    found = [[lengths[number] for number in batch] for batch in batches]
    assert found == [[40, 40, 30], [9, 3, 3], [2] + [1] * 63, [1] * 17]


def test_batches_of_similar_length_do_not_matter(tiny, monkeypatch):
    tokens = [tokens for row in draw(tiny, 100, longest=(12, 12)) for tokens in row]
    owner = [0] * 100 + [1] * 100
    monkeypatch.setattr(sampling, "_LENGTH_SHARE", 0.0)
    monkeypatch.setattr(sampling, "_LENGTH_SHARE_OF_FEW_ROWS", 0.0)
    together = score(tiny, owner, tokens).detach()
    assert len(list(sampling._of_similar_length(tokens))) == 1
    monkeypatch.undo()
    monkeypatch.setattr(sampling, "_FEW_ROWS", 3)
    batches = list(sampling._of_similar_length(tokens))
    assert len(batches) > 3 and sorted(number for batch in batches for number in batch) == list(range(200))
    torch.testing.assert_close(score(tiny, owner, tokens).detach(), together, rtol=1e-10, atol=1e-12)
    assert (score(tiny, owner, tokens[::-1]).detach() - together).abs().max() > 1e-2


def test_cut_hypotheses(tiny):
    rows = draw(tiny, 300, longest=(1, 1))
    end = tiny.dictionary.eos()
    kinds = {tokens == (end,) for row in rows for tokens in row}
    assert kinds == {True, False}
    assert all(len(tokens) == 1 for row in rows for tokens in row)
    # a cut hypothesis is scored without an end
    word = tiny.dictionary.index("a")
    cut, ended = score(tiny, [0, 0], [(word,), (word, end)]).tolist()
    assert cut == pytest.approx(tiny.step_by_step(0, (word,)), abs=1e-10)
    assert ended < cut


def test_seeds(tiny):
    assert draw(tiny, 30) == draw(tiny, 30)
    assert draw(tiny, 30) != draw(tiny, 30, seed=1)
