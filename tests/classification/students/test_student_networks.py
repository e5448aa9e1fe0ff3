"""Names, sizes, shapes and initial weights of the networks; the sizes are those of the papers."""

import math

import pytest
import torch
from torch import nn

from fairseq_l2t.classification.students import STUDENT_FORMS, StudentNameError, build_student, refuse_student_name
from fairseq_l2t.classification.students.batch_norm import CarriedBatchNorm2d, statistic_names
from fairseq_l2t.classification.students.resnet import ResidualBlock

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
SMALL = ("mlp-5", "mlp", "lenet", "resnet-8", "wide-resnet-10-1", "wide-resnet-10-2", "densenet-bc-10-4")


def parameter_count(name, image_shape, **options):
    """Trainable parameters but for running statistics, which the papers do not count."""
    with torch.device("meta"):
        model = build_student(name, classes=10, image_shape=image_shape, **options)
    statistics = statistic_names(model)
    return sum(parameter.numel() for path, parameter in model.named_parameters() if path not in statistics)


@pytest.mark.parametrize(
    ("name", "image_shape", "count", "published"),
    [
        ("mlp", MNIST, 784 * 256 + 256 + 256 * 256 + 256 + 2570, None),
        ("mlp-5", DIGITS, 64 * 5 + 5 + 60, None),
        ("mlp-7-3", DIGITS, 64 * 7 + 7 + 24 + 40, None),
        ("lenet", MNIST, 431_080, None),  # Caffe's network
        # On digits: 3x3 kernels, 2x2 pixels left.
        ("lenet", DIGITS, 20 * 10 + 50 * 181 + 500 * 201 + 5010, None),
        # He et al. 2016, Table 6
        ("resnet-8", CIFAR, 75_290, None),
        ("resnet-20", CIFAR, 269_722, "0.27"),
        ("resnet-32", CIFAR, 464_154, "0.46"),
        ("resnet-44", CIFAR, 658_586, "0.66"),
        ("resnet-110", CIFAR, 1_727_962, "1.7"),
        # Zagoruyko and Komodakis 2016, Tables 4 and 5
        ("wide-resnet-40-1", CIFAR, 563_930, "0.6"),
        ("wide-resnet-40-4", CIFAR, 8_949_210, "8.9"),
        ("wide-resnet-16-8", CIFAR, 10_961_370, "11.0"),
        ("wide-resnet-28-10", CIFAR, 36_479_194, "36.5"),
        # Huang et al. 2017, Table 2
        ("densenet-bc-100-12", CIFAR, 769_162, "0.8"),
        ("densenet-bc-250-24", CIFAR, 15_324_406, "15.3"),
        ("densenet-bc-190-40", CIFAR, 25_624_430, "25.6"),
    ],
)
def test_parameters_are_as_many_as_published(name, image_shape, count, published):
    assert parameter_count(name, image_shape) == count
    if published is not None:
        decimals = len(published.partition(".")[2])
        assert f"{count / 1e6:.{decimals}f}" == published


def test_without_bias_the_classifier_alone_loses_parameters():
    for name in SMALL:
        assert parameter_count(name, DIGITS) - parameter_count(name, DIGITS, bias=False) == 10, name


@pytest.mark.parametrize("image_shape", [DIGITS, MNIST, CIFAR, (3, 9, 13)])
@pytest.mark.parametrize("name", SMALL)
def test_images_become_features_and_logits(name, image_shape):
    model = build_student(name, classes=4, image_shape=image_shape, bias=False)
    images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    features = model.features(images)
    assert features.shape == (2, model.classifier.in_features)
    assert model.classifier.bias is None
    torch.testing.assert_close(model(images), features @ model.classifier.weight.T)
    assert model(images).shape == (2, 4)
    assert model.eval()(images).shape == (2, 4)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-",
        "mpl",
        "mlp-",
        "mlp-0",
        "mlp--5",
        "mlp-5-",
        "mlp-x",
        "mlp-1000000",
        "mlp-\uff15",
        "MLP",
        "lenet-5",
        "resnet",
        "resnet-2",
        "resnet-9",
        "resnet-08",
        "resnet-8-1",
        "resnet-8\n",
        " resnet-8",
        "wide-resnet-10",
        "wide-resnet-4-1",
        "wide-resnet-28-10-1",
        "wide-resnet-29-10",
        "densenet-40-12",
        "densenet-bc-99-12",
        "densenet-bc-4-12",
    ],
)
def test_bad_names_are_told_the_good_forms(name):
    for refuse in (refuse_student_name, lambda name: build_student(name, classes=10, image_shape=CIFAR)):
        with pytest.raises(StudentNameError) as caught:
            refuse(name)
        message = str(caught.value)
        assert message.startswith(f"--student: {name!r}; expected ")
        assert all(form in message for form in STUDENT_FORMS)


@pytest.mark.parametrize("name", SMALL)
def test_good_names_pass(name):
    refuse_student_name(name)


@pytest.mark.parametrize("name", [name for name in SMALL if not name.startswith("mlp")])
def test_small_images_are_refused_by_convolutions(name):
    with pytest.raises(ValueError, match=f"--student: {name} with images of 8x7; expected images of at least 8x8"):
        build_student(name, classes=10, image_shape=(1, 8, 7))


@pytest.mark.parametrize(("classes", "image_shape"), [(0, DIGITS), (10, (0, 8, 8))])
def test_sizes_below_one_are_refused(classes, image_shape):
    with pytest.raises(ValueError, match="expected sizes of at least 1"):
        build_student("mlp", classes=classes, image_shape=image_shape)


def test_the_global_generator_decides_the_weights():
    for name in SMALL:
        vectors = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            model = build_student(name, classes=10, image_shape=DIGITS)
            vectors.append(nn.utils.parameters_to_vector(model.parameters()))
        assert torch.equal(vectors[0], vectors[1]), name
        assert not torch.equal(vectors[0], vectors[2]), name


def test_initial_weights_are_those_of_the_papers():
    torch.manual_seed(0)
    model = build_student("wide-resnet-10-4", classes=10, image_shape=CIFAR)
    convolutions = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    assert len(convolutions) == 10
    for part in convolutions:
        expected = math.sqrt(2 / (part.out_channels * part.kernel_size[0] ** 2))
        # The deviation of n draws is off by 1 / sqrt(2 n) of itself; four of that.
        assert float(part.weight.detach().std()) == pytest.approx(expected, rel=4 / math.sqrt(2 * part.weight.numel()))
        assert part.bias is None
    for part in model.modules():
        if isinstance(part, CarriedBatchNorm2d):
            starts = {name: values.unique().tolist() for name, values in part.named_parameters()}
            assert starts == {"weight": [1.0], "bias": [0.0], "running_mean": [0.0], "running_var": [1.0]}
    assert not model.classifier.bias.any()


def test_every_batch_normalisation_is_carried():
    for name in SMALL:
        model = build_student(name, classes=10, image_shape=DIGITS)
        assert not list(model.named_buffers()), name


def test_the_shortcut_of_option_a_subsamples_and_adds_zero_channels():
    block = ResidualBlock(2, 5, stride=2)
    nn.init.zeros_(block.residual[-1].weight)
    x = torch.arange(2 * 5 * 5.0).reshape(1, 2, 5, 5)
    out = block(x)
    assert torch.equal(out[:, :2], x[:, :, ::2, ::2])
    assert out.shape == (1, 5, 3, 3)
    assert not out[:, 2:].any()
    # The control: with its scale the residual is part of the sum.
    nn.init.ones_(block.residual[-1].weight)
    assert block(x)[:, 2:].any()
