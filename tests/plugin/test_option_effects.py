"""Each option of fairseq's training parser is obeyed, without effect on what is computed, or refused by name."""

import shlex

import pytest
import torch
from fairseq import options
from fairseq.registry import REGISTRIES

from fairseq_l2t.core import unroll
from fairseq_l2t.plugin import OptionError
from fairseq_l2t.plugin.option_effects import OBEYED, REFUSED, WITHOUT_EFFECT, refuse_ignored, without_effect
from fairseq_l2t.teaching.options.declaration import declared
from fairseq_l2t.teaching.options.translation_options import TranslationOptions
from fairseq_l2t.testing.tiny_students import make_student, spread_teacher

OURS = declared(TranslationOptions).keys() - {"validate_interval_updates"}  # fairseq's parser never sees them
OPTIMIZERS = ("adam", "nag", "sgd", "adagrad")
SCHEDULES = ("cosine", "fixed", "inverse_sqrt", "manual", "polynomial_decay", "step", "tri_stage", "triangular")


def parsers():
    """Yield fairseq's parser for every choice that teacher training accepts."""
    chosen = [
        *(("--arch", name) for name in ("transformer", "lstm", "fconv", "lightconv")),
        *(("--optimizer", name) for name in OPTIMIZERS),
        *(("--lr-scheduler", name, "--max-lr", "1") for name in SCHEDULES),
        *((f"--{kind}", name) for kind in ("tokenizer", "bpe", "scoring") for name in REGISTRIES[kind]["registry"]),
        ("--criterion", "dynamic_teacher_loss", "--task", "l2t_dlf"),
        ("--use-bmuf",),
    ]
    for choice in chosen:
        parser = options.get_training_parser()
        arch = () if "--arch" in choice else ("--arch", "fconv")
        options.parse_args_and_arch(parser, input_args=["data", *arch, *choice], parse_known=True)
        yield parser


@pytest.fixture(scope="module")
def actions():
    """Every option of these parsers, by name."""
    return {action.dest: action for parser in parsers() for action in parser._actions if action.dest not in OURS}


def unclassified(names):
    return set(names) - OBEYED - WITHOUT_EFFECT - REFUSED.keys()


def test_every_option_is_classified_once(actions):
    assert not unclassified(actions)
    assert unclassified([*actions, "a_new_option"]) == {"a_new_option"}  # the control
    assert not OBEYED & WITHOUT_EFFECT and not (OBEYED | WITHOUT_EFFECT) & REFUSED.keys()
    assert not (OBEYED | WITHOUT_EFFECT | REFUSED.keys()) - actions.keys()  # names of no option


OTHER_VALUES = {"ddp_backend": "fully_sharded", "update_epoch_batch_itr": True}


def test_refused_with_another_value_than_the_default(actions):
    defaults = {name: action.default for name, action in actions.items()}
    for name in REFUSED:
        action = actions[name]
        value = True if action.nargs == 0 else OTHER_VALUES.get(name, 7)
        with pytest.raises(OptionError, match=f"^--{name.replace('_', '-')}: "):
            refuse_ignored({name: value}, {name: value}, defaults)
        if action.nargs != 0 and action.default not in (None, "==SUPPRESS=="):
            refuse_ignored({name: action.default}, {name: action.default}, defaults)  # what fairseq does anyway
    refuse_ignored(dict.fromkeys(OBEYED | WITHOUT_EFFECT, 7), {}, defaults)
    with pytest.raises(OptionError, match="^--encoder-layerdrop: 0.1; "):
        refuse_ignored({}, {"encoder_layerdrop": 0.1}, defaults)  # set by a named architecture


# --- the tables are true ------------------------------------------------------------------------------------------

IDLE = shlex.split("""
--num-workers 2 --data-buffer-size 3 --log-interval 7 --log-format none --save-interval 3 --keep-last-epochs 2
--keep-interval-updates 1 --keep-best-checkpoints 2 --no-epoch-checkpoints --no-last-checkpoints
--no-save-optimizer-state --best-checkpoint-metric bleu --maximize-best-checkpoint-metric --checkpoint-suffix x
--max-tokens-valid 100 --batch-size-valid 3 --fixed-validation-seed 7 --ignore-unused-valid-subsets
--distributed-backend gloo --distributed-no-spawn --ddp-backend legacy_ddp --bucket-cap-mb 3 --find-unused-parameters
--fast-stat-sync --heartbeat-timeout 9 --broadcast-buffers --all-gather-list-size 9 --empty-cache-freq 2
--tokenizer moses --moses-no-escape --bpe sentencepiece --sentencepiece-model none --scoring sacrebleu
--sacrebleu-lowercase --gen-subset valid --reset-logging --suppress-crashes --use-plasma-view --eval-bleu-print-samples
""")
EFFECTIVE = [
    ["--dropout", "0.4"],
    ["--batch-size", "16"],
    ["--update-freq", "1"],
    ["--sentence-avg"],
    ["--clip-norm", "0.1"],
    ["--left-pad-target"],
    ["--required-seq-len-multiple", "4"],
    ["--warmup-init-lr", "0.01"],
    ["--seed", "4"],
    ["--decoder-out-embed-dim", "8"],
]


def life(data_bin, *more):
    student = make_student(data_bin, "fconv", "nag", *more)
    unroll(student, spread_teacher(student), 2)
    return student.omega


@pytest.fixture(scope="module")
def ordinary(data_bin):
    return life(data_bin)


def test_options_without_effect(data_bin, ordinary):
    student = make_student(data_bin, "fconv", "nag", *IDLE)
    unroll(student, spread_teacher(student), 2)
    assert torch.equal(student.omega, ordinary)
    told = without_effect(student.options.of_fairseq)
    flags = {word for word in IDLE if word.startswith("--")}
    assert flags - set(told) == {"--log-format", "--ddp-backend"}  # obeyed, and accepted for this value


@pytest.mark.parametrize("given", EFFECTIVE, ids=" ".join)
def test_options_that_are_obeyed(data_bin, ordinary, given):
    found = life(data_bin, *given)
    assert found.shape != ordinary.shape or not torch.equal(found, ordinary)
