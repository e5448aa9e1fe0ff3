"""The doctor: sound students pass, each way to be silently wrong is found, and a student is left as it was."""

import dataclasses
from contextlib import nullcontext

import pytest
import torch
from fairseq.tasks.translation import TranslationTask
from torch import nn

from fairseq_l2t.core import unroll
from fairseq_l2t.kernels.twice_differentiable import attribute_replaced, twice_differentiable
from fairseq_l2t.plugin import FairseqStudent
from fairseq_l2t.plugin.doctor.doctor import Doctor, DoctorError, quick_check
from fairseq_l2t.plugin.doctor.optimizer_checks import adjoint_check
from fairseq_l2t.plugin.student_options import OptionError, parse_student_options
from fairseq_l2t.plugin.token_loss import token_loss
from fairseq_l2t.testing.tiny_students import arguments, make_student, spread_teacher
from fairseq_l2t.unroll.update_rules import Adam


def failures(student):
    """Return the names of the checks that failed."""
    return {check.name for check in Doctor(student).checks() if not check.is_good}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "optimizer"), [("transformer_tied", "adam"), ("fconv_iwslt", "nag"), ("lstm", "adagrad")]
)
def test_sound_students_pass(data_bin, family, optimizer):
    checks = list(Doctor(make_student(data_bin, family, optimizer)).checks())
    assert [str(check) for check in checks if not check.is_good] == []
    names = " ".join(check.name for check in checks)
    parts = ["modules", "parameters", f"update by {optimizer}", "second derivatives, encoder", "replay of dropout"]
    parts += ["second derivatives, decoder", "adjoint of optimizer", "dev measure", "hypergradient of 2"]
    parts += ["second derivatives in float32", "hypergradient in float32"]
    assert [part for part in parts if part not in names] == []
    assert all(str(check).startswith("ok    ") for check in checks)


def test_stock_gradient_scaling_is_found(data_bin):
    student = make_student(data_bin, "fconv_iwslt", "nag")
    # twice_differentiable mends the weight normalisation alone: fconv scales its encoder's gradient as fairseq has it.
    with attribute_replaced(student, "second_derivatives", twice_differentiable):
        failed = failures(student)
        assert any(name.startswith("second derivatives, encoder") for name in failed)
        with pytest.raises(DoctorError, match="second derivatives, all modules .* from differences"):
            quick_check(student)
    quick_check(student)


def test_attention_without_second_derivative_is_found(data_bin):
    student = make_student(data_bin, "transformer", "adam")
    with (
        attribute_replaced(student, "second_derivatives", nullcontext),
        pytest.raises(DoctorError, match="flash_attention.* is not implemented.*remedy: a module written with"),
    ):
        quick_check(student)
    # The full form goes on to what needs no second derivative, and leaves out what does.
    with attribute_replaced(student, "second_derivatives", nullcontext):
        checks = list(Doctor(student).checks())
    assert [check.name for check in checks if not check.is_good] == ["second derivatives"]
    assert checks[-1].name == "replay of dropout"


@pytest.mark.parametrize("optimizer", ["adam", "nag", "sgd", "adagrad"])
def test_a_small_learning_rate_hides_no_wrong_update(data_bin, monkeypatch, optimizer):
    student = make_student(data_bin, "fconv", optimizer, "--lr", "1e-6")
    next(check for check in Doctor(student).quick_checks() if check.name.startswith("update by") and check.is_good)
    real = type(student.rule).apply

    def apply(rule, omega, buffers, gradient, size):
        new, state = real(rule, omega, buffers, gradient, size)
        return omega + 1.01 * (new - omega), state

    monkeypatch.setattr(type(student.rule), "apply", apply)
    check = next(check for check in Doctor(student).quick_checks() if check.name.startswith("update by"))
    assert not check.is_good


@pytest.mark.parametrize("learning_rate", ["0.01", "1e-6"])
def test_a_small_learning_rate_hides_no_wrong_adjoint(data_bin, monkeypatch, learning_rate):
    student = make_student(data_bin, "fconv", "adam", "--lr", learning_rate)
    assert adjoint_check(student).is_good
    monkeypatch.setattr(student, "rule", ForgetfulAdam(**dataclasses.asdict(student.rule)))
    assert not adjoint_check(student).is_good


def test_another_optimizer_than_fairseqs_is_found(data_bin, monkeypatch):
    student = make_student(data_bin, "fconv", "adam")
    assert isinstance(student.rule, Adam)
    real = FairseqStudent.restart

    def restart(self, seed):
        real(self, seed)
        self.rule = dataclasses.replace(self.rule, beta1=0.8)

    monkeypatch.setattr(FairseqStudent, "restart", restart)
    student.restart(3)
    with pytest.raises(DoctorError, match="update by adam .* from fairseq's own"):
        quick_check(student)


class ForgetfulAdam(Adam):
    """Adam whose adjoint takes its moments for constants."""

    def adjoint(self, omega, buffers, gradient, size, omega_bar, buffers_bar):
        """As plain SGD's would."""
        return super().adjoint(omega, buffers, gradient, size, omega_bar, tuple(map(torch.zeros_like, buffers_bar)))


def test_a_wrong_adjoint_is_found(data_bin, monkeypatch):
    real = FairseqStudent.restart

    def restart(self, seed):
        real(self, seed)
        self.rule = ForgetfulAdam(**dataclasses.asdict(self.rule))

    monkeypatch.setattr(FairseqStudent, "restart", restart)
    failed = failures(make_student(data_bin, "fconv", "adam"))
    assert "adjoint of optimizer and clipping" in failed


def test_random_numbers_of_another_generator_are_found(data_bin):
    student = make_student(data_bin, "fconv", "nag")
    generator = torch.Generator().manual_seed(1)

    def noisy(model, sample, padding, coefficients, shape, *, measure=True):
        loss = token_loss(model, sample, padding, coefficients, shape, measure=measure)
        return dataclasses.replace(loss, total=loss.total * (1 + torch.rand((), generator=generator)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fairseq_l2t.plugin.student.fairseq_student.token_loss", noisy)
        assert "replay of dropout" in failures(student)


class Doubling(nn.Module):
    """A layer that is not verified; its second derivatives are right."""

    def forward(self, value):
        """Return something close to twice the value."""
        return 2 * value + 0.1 * torch.tanh(value)


class _WrongSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        ctx.save_for_backward(value)
        return value + 0.1 * value**2

    @staticmethod
    def backward(ctx, cotangent):
        # The first derivative is right; detached, it has no second one.
        return cotangent * (1 + 0.2 * ctx.saved_tensors[0].detach())


class SquareInFloat32(nn.Module):
    """A layer that is wrong in float32 alone, as a fused kernel may be."""

    def forward(self, value):
        """Return the value with a little of its square."""
        return _WrongSquare.apply(value) if value.dtype == torch.float32 else value + 0.1 * value**2


class Square(nn.Module):
    """A layer that is not verified; its second derivatives are silently wrong."""

    def forward(self, value):
        """Return the value with a little of its square."""
        return _WrongSquare.apply(value)


class _Deaf(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return value * 1.0

    @staticmethod
    def backward(ctx, cotangent):
        return torch.ones_like(cotangent)


class Deaf(nn.Module):
    """A layer whose gradient does not depend on that of the loss."""

    def forward(self, value):
        """Return the value."""
        return _Deaf.apply(value)


class Constant(nn.Module):
    """A layer whose output depends on nothing, with derivatives of 0 if ``has_graph``."""

    def __init__(self, has_graph=True):
        super().__init__()
        self.has_graph = has_graph

    def forward(self, value):
        """Return zeros."""
        return 0 * value if self.has_graph else torch.zeros_like(value)


def student_with(data_bin, monkeypatch, layer, *more, **options):
    """Return an fconv student whose decoder puts out what ``layer`` makes of it."""
    real = TranslationTask.build_model

    def build_model(self, *given, **named):
        model = real(self, *given, **named)
        model.decoder.fc3.register_forward_hook(lambda module, inputs, output: layer(output))
        model.decoder.extra = layer
        return model

    monkeypatch.setattr(TranslationTask, "build_model", build_model)
    return FairseqStudent(parse_student_options([*arguments(data_bin, "fconv", "nag"), *more]), **options)


def test_unknown_modules_are_measured(data_bin, monkeypatch):
    name = f"{__name__}.Doubling"
    student = student_with(data_bin, monkeypatch, Doubling(), refuse_modules=False)
    checks = {check.name: check for check in Doctor(student).checks()}
    assert [name for name, check in checks.items() if not check.is_good] == [f"module {name}"]
    assert f"--trust-module {name}" in str(checks[f"module {name}"])
    trusted = student_with(data_bin, monkeypatch, Doubling(), "--trust-module", name)
    assert failures(trusted) == set()


def test_a_trusted_name_must_be_that_of_a_module(data_bin):
    with pytest.raises(OptionError, match="--trust-module: my.Layer; the student has no such module"):
        make_student(data_bin, "fconv", "nag", "--trust-module", "my.Layer")


def test_a_trusted_module_that_is_wrong_is_found(data_bin, monkeypatch):
    student = student_with(data_bin, monkeypatch, Square(), "--trust-module", f"{__name__}.Square")
    assert any(name.startswith("second derivatives") for name in failures(student))
    with pytest.raises(DoctorError, match="second derivatives"):
        quick_check(student)


@pytest.mark.parametrize(
    ("layer", "more"),
    [(Deaf(), []), (Constant(), []), (nn.Identity(), ["--cross-entropy-mix", "1"])],
    ids=["deaf", "constant", "unused"],
)
def test_a_teacher_without_influence_is_found(data_bin, monkeypatch, layer, more):
    student = student_with(data_bin, monkeypatch, layer, *more, refuse_modules=False)
    with pytest.raises(
        DoctorError, match="coefficients .*the teacher would learn nothing; remedy: a model whose output"
    ):
        quick_check(student)
    checks = [check for check in Doctor(student).checks() if not check.name.startswith("module ")]
    assert [check.name for check in checks if not check.is_good] == ["second derivatives, coefficients"]
    assert checks[-1].name == "replay of dropout"


def test_an_output_without_parameters_is_refused(data_bin, monkeypatch):
    with pytest.raises(
        OptionError, match="--arch: fconv; expected a model whose output depends on a trained parameter"
    ):
        student_with(data_bin, monkeypatch, Constant(has_graph=False), refuse_modules=False)


def test_what_is_wrong_in_float32_alone_is_found(data_bin, monkeypatch):
    name = f"{__name__}.SquareInFloat32"
    student = student_with(data_bin, monkeypatch, SquareInFloat32(), "--trust-module", name)
    assert "second derivatives in float32" in failures(student)


def test_the_student_is_left_as_it_was(data_bin):
    fresh, checked = (make_student(data_bin, "fconv", "adam") for _ in range(2))
    quick_check(checked)
    assert checked.omega.dtype == torch.float32 and checked.update == 0
    assert checked.cross_entropy_updates == fresh.cross_entropy_updates == 1
    assert "next_batch" not in vars(checked) and "step_size" not in vars(checked)
    ends = []
    for student in (fresh, checked):
        unroll(student, spread_teacher(student), 3)
        ends.append(student.omega.clone())
    assert torch.equal(*ends)
    list(Doctor(checked).checks())
    assert checked.update == 0 and checked.omega.dtype == torch.float32
    unroll(checked, spread_teacher(checked), 3)
    assert torch.equal(checked.omega, ends[0])
