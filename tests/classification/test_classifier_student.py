"""The classifier as a student of the core: exact hypergradients, carried statistics, seeds, interruption."""

import copy

import pytest
import torch
from torch import nn

from fairseq_l2t.classification.classifier_student import ClassifierStudent
from fairseq_l2t.classification.recipe import Recipe
from fairseq_l2t.classification.students.batch_norm import statistic_names
from fairseq_l2t.classification.teaching import OBJECTIVES, dev_objective
from fairseq_l2t.core import hypergradient, unroll
from fairseq_l2t.unroll.memory.plan import MemoryPlan
from fairseq_l2t.unroll.trajectory import advance, replay
from tests.classification.small_students import classifier, digits, teacher_for

IMAGES = list(range(20))
FAMILIES = ["mlp-5", "lenet", "resnet-8", "wide-resnet-10-1", "densenet-bc-10-4"]
RULES = [{}, {"optimizer": "nag", "lr": 0.01}, {"optimizer": "adam", "lr": 0.002, "weight_decay": 0.0}]


def accuracy_after(trajectory, teacher):
    replay(trajectory, teacher)
    return dev_objective(trajectory.student, "expected-accuracy", IMAGES)[0]


def difference_quotient(trajectory, teacher, direction, step):
    """Return the slope along ``direction`` by four values."""

    def value(size):
        moved = copy.deepcopy(teacher)
        with torch.no_grad():
            for name, parameter in moved.named_parameters():
                parameter.add_(size * direction[name])
        return accuracy_after(trajectory, moved)

    return (8 * (value(step) - value(-step)) - value(2 * step) + value(-2 * step)) / (12 * step)


def along(theta, direction):
    return float(sum((theta[name] * direction[name]).sum() for name in theta))


@pytest.mark.parametrize("rule", RULES, ids=["momentum", "nag", "adam"])
@pytest.mark.parametrize("family", FAMILIES)
def test_hypergradient_is_that_of_finite_differences(family, rule):
    student = classifier(family, **rule)
    teacher = teacher_for(student)
    advance(student, teacher, 3)
    trajectory = unroll(student, teacher, 3)
    _, grad_omega = dev_objective(student, "expected-accuracy", IMAGES)
    found = hypergradient(trajectory, grad_omega)
    generator = torch.Generator().manual_seed(0)
    direction = {name: torch.randn(part.shape, generator=generator).double() for name, part in found.items()}
    ours = along(found, direction)
    # A step so small that no ReLU and no maximum changes sides.
    expected = difference_quotient(trajectory, teacher, direction, 1e-7)
    assert ours == pytest.approx(expected, rel=2e-5, abs=1e-9)
    names = statistic_names(student.model)
    if names:
        # Control: a hypergradient blind to the running statistics is another one.
        parts = zip(student.parameters.names, student.parameters.sizes, strict=True)
        blind = torch.cat([torch.full((size,), float(name not in names)).double() for name, size in parts])
        replay(trajectory, teacher)
        control = hypergradient(trajectory, grad_omega * blind)
        assert along(control, direction) != pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("layout", [MemoryPlan(), MemoryPlan(budget=10**9)], ids=["gradients", "budget"])
def test_layouts_give_the_same_bits(layout):
    found = []
    for memory in (None, layout):
        student = classifier("resnet-8", dtype=torch.float32)
        teacher = teacher_for(student)
        trajectory = unroll(student, teacher, 4, memory)
        found.append(hypergradient(trajectory, dev_objective(student, "expected-accuracy", IMAGES)[1]))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    student = classifier("resnet-8", dtype=torch.float32, seed=4)
    other = unroll(student, teacher_for(student), 4)
    control = hypergradient(other, dev_objective(student, "expected-accuracy", IMAGES)[1])
    assert not torch.equal(control["values"], found[0]["values"])


class _Torch(nn.Module):
    """The same network with torch's own batch normalisation, trained by torch's own optimizer."""

    def __init__(self, student):
        super().__init__()
        self.model = copy.deepcopy(student.model)
        for path, module in list(self.model.named_modules()):
            if type(module).__name__ == "CarriedBatchNorm2d":
                own = nn.BatchNorm2d(len(module.weight), dtype=torch.float64)
                own.weight.data.copy_(module.weight.data)
                own.bias.data.copy_(module.bias.data)
                parent, _, name = path.rpartition(".")
                setattr(self.model.get_submodule(parent), name, own)


def test_the_same_student_as_torch_trains():
    student = classifier("resnet-8", momentum=0.8, lr=0.05)
    theirs = _Torch(student).model.train()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.8, weight_decay=1e-3)
    student.cross_entropy_updates = 5
    for _ in range(5):
        images, labels = student._batches.tensors(student.next_batch()[0], torch.float64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(theirs(images), labels).backward()
        optimizer.step()
        advance(student, None, 1)
    expected = {**dict(theirs.named_parameters()), **dict(theirs.named_buffers())}
    for name, parameter in student.model.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-9, atol=1e-12)
    student.cross_entropy_updates = 6
    advance(student, None, 1)  # control: one update more is another student
    assert not torch.allclose(student.model.classifier.weight, theirs.classifier.weight, rtol=1e-6)


def test_an_interrupted_life_goes_on_to_the_same_bits():
    whole, first, second = (classifier("resnet-8", dtype=torch.float32) for _ in range(3))
    teacher = teacher_for(whole)
    for student, updates in ((whole, 7), (first, 4)):
        for _ in range(updates):
            advance(student, teacher, 1)
            student.observe_dev()
    tensors, values = first.state_dict()
    second.load_state_dict({name: part.clone() for name, part in tensors.items()}, values)
    assert not torch.equal(second.omega, whole.omega)
    for _ in range(3):
        advance(second, teacher, 1)
        second.observe_dev()
    assert torch.equal(second.omega, whole.omega)
    assert second.state.state_dict() == whole.state.state_dict()
    with pytest.raises(ValueError, match="student: .* parameters saved"):
        classifier("mlp-5").load_state_dict(tensors, values)


def test_seeds_decide():
    same, other = classifier(seed=3), classifier(seed=4)
    assert torch.equal(classifier(seed=3).omega, same.omega) and not torch.equal(other.omega, same.omega)
    orders = [torch.cat([s._batches.of_update(k).indices for k in range(8)]) for s in (same, other, classifier(seed=3))]
    assert torch.equal(orders[0], orders[2]) and not torch.equal(orders[0], orders[1])
    assert sorted(orders[0].tolist()) == list(range(64))  # an epoch of 8 batches holds every image once
    assert not torch.equal(same._batches.of_update(8).indices, same._batches.of_update(0).indices)


def test_dev_is_parted():
    student = ClassifierStudent(digits(), Recipe(student="mlp-5", total_updates=10, batch_size=8), dev_holdout=0.25)
    assert (len(student.teaching), len(student.holdout)) == (223, 74)
    assert not set(student.teaching) & set(student.holdout)
    with pytest.raises(ValueError, match="--dev-holdout: 1.0"):
        ClassifierStudent(digits(), Recipe(student="mlp-5", total_updates=10, batch_size=8), dev_holdout=1.0)


def test_expected_accuracy_is_the_mean_probability_of_the_label():
    student = classifier("resnet-8")
    value, gradient = dev_objective(student, "expected-accuracy", IMAGES)
    student.model.eval()
    logits, labels = student._logits(student.splits.dev, IMAGES)
    mean = logits.softmax(-1)[range(20), labels].mean()
    assert value == pytest.approx(mean.item(), rel=1e-12)
    expected = student.parameters.gather(torch.autograd.grad(mean, student.parameters.parameters))
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-14)
    assert value != dev_objective(student, "expected-accuracy", IMAGES[:10])[0]


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="--batch-size: 65; expected at most the 64 training images"):
        classifier(batch_size=65)


def test_calibrated_perplexity_does_not_reward_a_scale():
    student = classifier("mlp-5")
    found = {}
    for scale in (1.0, 3.0):
        omega = student.omega.clone()
        with torch.no_grad():
            student.model.classifier.weight.mul_(scale)
            student.model.classifier.bias.mul_(scale)
        found[scale] = [dev_objective(student, name, IMAGES)[0] for name in OBJECTIVES]
        student.set_omega(omega)
    calibrated = list(OBJECTIVES).index("calibrated-perplexity")
    for name, small, large in zip(OBJECTIVES, found[1.0], found[3.0], strict=True):
        assert (small == pytest.approx(large, rel=1e-6)) == (name == "calibrated-perplexity"), name
    plain = list(OBJECTIVES).index("inverse-perplexity")
    assert all(values[calibrated] >= values[plain] for values in found.values())
