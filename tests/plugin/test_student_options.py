"""What cannot be taught exactly is refused by the name of its option, where possible before data is read."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from fairseq.optim import OPTIMIZER_REGISTRY
from fairseq.tasks.translation import TranslationTask
from torch import nn

import fairseq_l2t.plugin.student.fairseq_student as student_module
from fairseq_l2t.core import hypergradient, unroll
from fairseq_l2t.kernels.twice_differentiable import NotTwiceDifferentiableError
from fairseq_l2t.plugin import OptionError
from fairseq_l2t.plugin.student.data import DevData
from fairseq_l2t.plugin.student.optimizers import rule_of
from fairseq_l2t.plugin.student_options import parse_student_options
from fairseq_l2t.testing.tiny_students import FAMILIES, arguments, make_student, spread_teacher

# What is given, and what the message must hold: option, value, range.
REFUSED = [
    ("--fp16", ["--fp16:", "--bf16 or float32"]),
    ("--memory-efficient-fp16", ["fp16:", "--bf16 or float32"]),
    ("--amp", ["--amp:", "--bf16 or float32"]),
    ("--memory-efficient-bf16", ["--memory-efficient-bf16:", "--bf16 or float32"]),
    ("--lr 0", ["--lr:", " 0", "above 0"]),
    ("--lr=-1", ["--lr:", "-1", "above 0"]),
    ("--lr nan", ["--lr:", "nan", "above 0"]),
    ("--lr inf", ["--lr:", "inf", "above 0"]),
    ("--lr 0.1,nan", ["--lr:", "nan", "above 0"]),
    ("--total-updates 0", ["--total-updates: 0", "at least 1"]),
    ("--total-updates=-3", ["--total-updates: -3", "at least 1"]),
    ("--cross-entropy-updates 20", ["--cross-entropy-updates", ": 20", "0 to 19"]),
    ("--cross-entropy-updates=-1", ["--cross-entropy-updates", ": -1", "at least 0"]),
    ("--dev-holdout 0 --holdout-lives 1", ["--dev-holdout: 0", "above 0 and below 1"]),
    ("--dev-holdout 1", ["--dev-holdout: 1", "and below 1"]),
    ("--dev-holdout nan", ["--dev-holdout: nan", "and below 1"]),
    ("--samples 8", ["--samples: 8", "has no effect with --objective"]),
    ("--estimator risk", ["--estimator: risk", "has no effect with --objective"]),
    ("--objective expected-bleu --risk-alpha 2", ["--risk-alpha: 2.0", "has no effect with --estimator reinforce"]),
    ("--bleu-tokenizer char", ["--bleu-tokenizer: char", "has no effect with --objective"]),
    ("--dev-batch 0", ["--dev-batch: 0", "at least 1"]),
    ("--initial-coefficient 0", ["--initial-coefficient: 0", "at least 1e-06 and at most 1000"]),
    ("--initial-coefficient nan", ["--initial-coefficient: nan", "at least 1e-06"]),
    ("--initial-coefficient 1e20", ["--initial-coefficient: 1e20", "at most 1000"]),
    ("--teacher-lr 1e20", ["--teacher-lr: 1e20", "at most 100"]),
    ("--loss-scale 1e20", ["--loss-scale: 1e20", "at most 10000000"]),
    ("--teacher-updates 99999999999999999999", ["--teacher-updates: 99999999999999999999", "at most 10000000"]),
    ("--total-updates 99999999999999999999", ["--total-updates: 99999999999999999999", "at most 10000000"]),
    ("--max-tokens 99999999999999999999", ["--max-tokens: 99999999999999999999", "at most 10000000"]),
    ("--batch-size 99999999999999999999", ["--batch-size: 99999999999999999999", "at most 10000000"]),
    ("--required-batch-size-multiple 0", ["--required-batch-size-multiple: 0", "at least 1"]),
    ("--lr=", ["--lr: no value", "above 0"]),
    ("--update-freq 0", ["--update-freq: 0", "at least 1"]),
    ("--update-freq 2,0", ["--update-freq: 2,0", "at least 1"]),
    ("--encoder-layers 0", ["--encoder-layers: 0", "at least 1"]),
    ("--encoder-layers-to-keep 0", ["--encoder-layers-to-keep: 0", "--encoder-layers"]),
    ("--adam-betas (0.9,nan)", ["--adam-betas: (0.9,nan)", "2 values", "below 1"]),
    ("--adam-betas 0.9", ["--adam-betas: 0.9", "2 values"]),
    ("--fp16-adam-stats", ["--fp16-adam-stats:", "float32"]),
    ("--dropout nan", ["--dropout: nan", "at least 0 and below 1"]),
    ("--base-layers 1", ["--base-layers: 1", "--lives-per-update"]),
    ("--eval-bleu --eval-bleu-args {beam:4}", ["--eval-bleu-args: {beam:4}", "JSON object", '{"beam": 4}']),
    ("--eval-bleu-detok-args 3", ["--eval-bleu-detok-args: 3", "JSON object"]),
    ("--eval-bleu-detok nothing", ["--eval-bleu-detok: nothing", "moses"]),
    ("--ddp-backend fully_sharded", ["--ddp-backend: fully_sharded", "pytorch_ddp"]),
    ("--tpu", ["--tpu:", "CPU or a GPU"]),
    ("--distributed-world-size 2", ["--distributed-world-size: 2", "--update-freq"]),
    ("--distributed-init-method tcp://a:1", ["--distributed-init-method: tcp://a:1", "--lives-per-update"]),
    ("--max-epoch 3", ["--max-epoch: 3", "--total-updates"]),
    ("--patience 2", ["--patience: 2", "--total-updates"]),
    ("--continue-once a.pt", ["--continue-once: a.pt", "--student-init"]),
    ("--num-batch-buckets 2", ["--num-batch-buckets: 2", "--max-tokens"]),
    ("--lr-scheduler inverse_sqrt --warmup-updates 0", ["--lr-scheduler: inverse_sqrt with", "--warmup-updates 0"]),
    ("--lr-scheduler cosine --lr 0.1,0.2", ["--lr-scheduler: cosine with --lr 0.1,0.2"]),
    ("--lr-scheduler cosine --min-lr 1", ["--lr-scheduler: cosine with", "--min-lr 1"]),
    ("--initial-off-diagonal 0.1", ["--initial-off-diagonal: 0.1", "0 unless --coefficient-form is smoothed"]),
    ("--coefficient-form smoothed --initial-off-diagonal nan", ["--initial-off-diagonal: nan", "at most 1000"]),
    ("--loss-scale=-1", ["--loss-scale: -1", "above 0"]),
    ("--loss-scale inf", ["--loss-scale: inf", "above 0"]),
    ("--cross-entropy-mix 1.5", ["--cross-entropy-mix: 1.5", "at least 0 and at most 1"]),
    ("--finetune-from-model absent.pt", ["--finetune-from-model: absent.pt", "--student-init"]),
    ("--restore-file absent.pt", ["--restore-file: absent.pt", "--student-init"]),
    ("--continue-once absent.pt", ["--continue-once: absent.pt", "--student-init"]),
    ("--encoder-layerdrop 0.1", ["--encoder-layerdrop: 0.1", "expected 0"]),
    ("--decoder-layerdrop 0.1", ["--decoder-layerdrop: 0.1", "expected 0"]),
    ("--checkpoint-activations", ["--checkpoint-activations:", "not supported"]),
    ("--grouped-shuffling", ["--grouped-shuffling:", "not supported"]),
    ("--update-ordered-indices-seed", ["--update-ordered-indices-seed:", "not supported"]),
    ("--seed 4294967295", ["--seed: 4294967295", "at most 2147483647"]),
    ("--lr-scheduler reduce_lr_on_plateau", ["--lr-scheduler: reduce_lr_on_plateau", "such as fixed"]),
    ("--no-such-option 1", ["unrecognized arguments: --no-such-option 1"]),
    ("--dropuot 0.1", ["--dropuot 0.1; did you mean --dropout?"]),
    ("--teacher-kyes=3", ["--teacher-kyes=3; did you mean --teacher-keys?"]),
    ("--user-dir no/such/folder", ["--user-dir: ", "no/such/folder", "not found"]),
]


@pytest.mark.parametrize(("given", "expected"), REFUSED, ids=[given for given, _ in REFUSED])
def test_refused_before_data_is_read(data_bin, monkeypatch, given, expected):
    read = []
    monkeypatch.setattr(student_module.tasks, "setup_task", lambda *arguments: read.append(arguments))
    with pytest.raises(ValueError) as raised:
        make_student(data_bin, "transformer", "adam", *given.split())
    message = str(raised.value)
    assert all(part in message for part in expected), message
    assert "\n" not in message
    assert not read


def test_no_arch():
    with pytest.raises(OptionError, match="^--arch: not given; expected an architecture"):
        parse_student_options(["data", "--max-tokens", "100"])


def test_the_accepted_neighbours(data_bin):
    # The control: values just inside the ranges pass the same checks.
    more = "--dev-holdout 0.5 --cross-entropy-updates 19 --cross-entropy-mix 1 --loss-scale 0.1 --encoder-layerdrop 0"
    more += " --loss-level sentence"
    options = parse_student_options(arguments(data_bin, "transformer", "adam", *more.split()))
    assert (options.total_updates, options.cross_entropy_updates) == (20, 19)
    assert (options.loss_shape.scale, options.loss_shape.cross_entropy_mix) == (0.1, 1.0)
    assert options.loss_shape.level == "sentence"


def test_defaults_follow_other_options(data_bin):
    base = [str(data_bin), *FAMILIES["fconv"], "--batch-size", "8", "--optimizer", "nag", "--lr", "0.1"]
    options = parse_student_options([*base, "--max-update", "50", "--initial-coefficient", "0.2"])
    assert (options.total_updates, options.cross_entropy_updates, options.loss_shape.scale) == (50, 0, 20.0)
    warm = parse_student_options([*base, "--max-update", "50", "--lr-scheduler", "inverse_sqrt", "--warmup-updates=7"])
    assert warm.cross_entropy_updates == 7


def test_no_batch_size(data_bin):
    base = [str(data_bin), *FAMILIES["fconv"], "--optimizer", "nag", "--lr", "0.1"]
    with pytest.raises(OptionError, match="--max-tokens / --batch-size: neither"):
        parse_student_options(base)


def test_no_optimizer(data_bin):
    with pytest.raises(OptionError, match="--optimizer: not given; expected adam, nag, sgd or adagrad"):
        parse_student_options([str(data_bin), *FAMILIES["fconv"], "--batch-size", "8", "--lr", "0.1"])


@pytest.mark.parametrize(
    ("family", "given", "reason"),
    [
        ("fconv", ("--encoder-layers", "[]"), r"--encoder-layers \[\] .*IndexError"),
        ("lstm", ("--decoder-layers", "2"), "--decoder-layers 2 .*--encoder-layers must match"),
        ("lstm", ("--decoder-freeze-embed",), "--decoder-freeze-embed .*AttributeError"),
    ],
)
def test_sizes_that_a_model_refuses(data_bin, family, given, reason):
    with pytest.raises(OptionError, match=f"^--arch: {family} with .*{reason}") as raised:
        make_student(data_bin, family, "adam", *given)
    assert "\n" not in str(raised.value)


def test_a_copy_of_this_package_as_user_dir(data_bin, tmp_path):
    copy = tmp_path / "fairseq_l2t"
    copy.mkdir()
    (copy / "__init__.py").touch()
    with pytest.raises(OptionError, match=f"^--user-dir: {copy}: .*not globally unique.*a copy of fairseq_l2t is not"):
        parse_student_options(arguments(data_bin, "fconv", "nag", "--user-dir", str(copy)))


def test_own_folder_as_user_dir(data_bin, repository, monkeypatch):
    monkeypatch.chdir(repository)
    for given in (["--user-dir", "fairseq_l2t"], [f"--user-dir={repository / 'fairseq_l2t'}"]):
        options = parse_student_options(arguments(data_bin, "fconv", "nag", *given))
        assert options.namespace.user_dir is None
        assert options.cfg.task._name == "translation"


def test_plugin_task_and_criterion_are_taken(data_bin):
    more = ["--task", "l2t_dlf", "--criterion", "dynamic_teacher_loss"]
    options = parse_student_options(arguments(data_bin, "fconv", "nag", *more))
    assert (options.cfg.task._name, options.namespace.criterion) == ("translation", "cross_entropy")


# --- row 18 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OPTIMIZER_REGISTRY.keys() - {"adam", "nag", "sgd", "adagrad"}))
def test_optimizer_without_adjoint(data_bin, name):
    base = [str(data_bin), *FAMILIES["fconv"], "--batch-size", "8", "--lr", "0.1"]
    with pytest.raises(OptionError, match=f"^--optimizer: {name} has no adjoint; expected adam, nag, sgd or adagrad"):
        parse_student_options([*base, "--optimizer", name])


def test_optimizer_of_a_plugin_without_adjoint():
    optimizer = SimpleNamespace(optimizer=torch.optim.Adamax([torch.zeros(1, requires_grad=True)]))
    with pytest.raises(OptionError, match=r"^--optimizer: own \(torch.optim.adamax.Adamax\) has no adjoint; expected"):
        rule_of(optimizer, "own")


class Doubling(nn.Module):
    """A module nobody has verified for."""

    def forward(self, value):
        return 2 * value


def test_custom_module(data_bin, monkeypatch):
    original = TranslationTask.build_model

    def build_model(self, *given, **named):
        model = original(self, *given, **named)
        model.decoder.doubling = Doubling()
        return model

    monkeypatch.setattr(TranslationTask, "build_model", build_model)
    with pytest.raises(NotTwiceDifferentiableError, match=r"decoder\.doubling \(.*\.Doubling\)"):
        make_student(data_bin, "transformer", "adam")


def test_adaptive_softmax(data_bin):
    for family in ("transformer", "lstm"):
        with pytest.raises(OptionError, match="^--adaptive-softmax-cutoff: 50,100; not supported"):
            make_student(data_bin, family, "adam", "--adaptive-softmax-cutoff", "50,100")
    with pytest.raises(OptionError, match="--criterion: adaptive_loss; expected cross_entropy"):
        make_student(data_bin, "lstm", "adam", "--criterion", "adaptive_loss")


# --- dev data (rows 11 and 12) -----------------------------------------------------------------------------------


def test_dev_emptied_by_length(data_bin):
    with pytest.raises(OptionError, match="dev split valid: none of its 60 pairs .*--max-source-positions"):
        make_student(data_bin, "transformer", "adam", "--max-source-positions", "2")


class _NoPairs:
    def __len__(self):
        return 0


class _EmptyTask:
    def dataset(self, split):
        return _NoPairs()


def test_empty_dev_set():
    with pytest.raises(OptionError, match="dev split valid: 0 pairs"):
        DevData(_EmptyTask(), ["valid"], (10, 10), holdout=0.2, seed=1, allow_overlap=False, train_split="train")


def test_holdout_of_too_few_pairs(data_bin):
    with pytest.raises(OptionError, match="--dev-holdout: 0.001 of 60 usable pairs of split valid"):
        make_student(data_bin, "transformer", "adam", "--dev-holdout", "0.001")


def test_dev_parts(data_bin):
    student = make_student(data_bin, "fconv", "nag", "--dev-holdout", "0.25")
    assert len(student.dev.holdout) == 15 and len(student.dev.teaching) == 45
    assert sorted(student.dev.holdout + student.dev.teaching) == list(range(60))


def test_dev_pairs_in_train(data_bin, tmp_path, caplog):
    folder = shutil.copytree(data_bin, tmp_path / "bin")
    for part in data_bin.glob("train.*"):
        shutil.copy(part, folder / part.name.replace("train", "valid"))
    with pytest.raises(OptionError, match=r"valid: \d+ of its pairs also occur.*--allow-dev-overlap") as raised:
        make_student(folder, "fconv", "nag")
    counted = int(str(raised.value).split("valid: ")[1].split()[0])
    assert 300 < counted <= 400  # distinct pairs; the generator may repeat a sentence
    make_student(folder, "fconv", "nag", "--allow-dev-overlap")
    assert f"dev split valid: {counted} of its pairs" in caplog.text


# --- bfloat16 -----------------------------------------------------------------------------------------------------


def test_bf16(data_bin):
    student = make_student(data_bin, "transformer", "adam", "--bf16")
    assert student.parameters.buffer.dtype == torch.bfloat16
    assert student.omega.dtype == torch.float32
    start = student.omega.clone()
    trajectory = unroll(student, spread_teacher(student), 2)
    value, grad_omega = student.dev_objective("likelihood")
    ours = hypergradient(trajectory, grad_omega)
    assert 0 < value < 1
    assert all(bool(torch.isfinite(part).all()) and bool(part.any()) for part in ours.values())
    # the master copy keeps what bfloat16 would round away
    assert not torch.equal(student.omega, student.omega.bfloat16().float())
    assert torch.equal(student.parameters.buffer, student.omega.bfloat16())
    assert not torch.equal(student.omega, start)
