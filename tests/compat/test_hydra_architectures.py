"""A model in YAML has the options that ``fairseq-train --arch`` gives it."""

import pytest
from fairseq.dataclass.configs import FairseqConfig
from fairseq_cli import train
from omegaconf import OmegaConf

from fairseq_l2t.compat.hydra_architectures import namespace_of, patch_configuration
from fairseq_l2t.testing.fairseq_reference import configuration
from fairseq_l2t.testing.tiny_students import FAMILIES


def composed(model):
    """The configuration that hydra composes from a YAML file with this model."""
    cfg = OmegaConf.create(OmegaConf.to_container(OmegaConf.structured(FairseqConfig())))
    cfg.task, cfg.model = {"_name": "translation", "data": "d"}, model
    return cfg


def from_yaml(model):
    """The model's part of the configuration as fairseq-hydra-train builds it."""
    cfg = composed(model)
    train.add_defaults(cfg)
    return cfg.model


def as_yaml(options):
    """``--dropout 0.2`` as ``dropout: 0.2``; flags as true."""
    given = {}
    for option in options:
        if option.startswith("--"):
            name = option[2:].replace("-", "_")
            given[name] = True
        else:
            given[name] = OmegaConf.create(f"value: {option}").value if option[0].isdigit() else option
    return {"_name": given.pop("arch"), **given}


@pytest.mark.parametrize("family", ["transformer_tied", "lstm_no_attention", "fconv_tied", "dynamicconv"])
def test_an_architecture_has_its_own_defaults(data_bin, family):
    """Stock fairseq, the control, leaves the rest to a configuration that gives None."""
    theirs = vars(configuration([str(data_bin), *FAMILIES[family]]).model)
    ours = vars(from_yaml(as_yaml(FAMILIES[family])))
    assert len(ours) > 30
    assert ours.keys() - theirs.keys() <= {"max_source_positions", "max_target_positions"}
    assert [name for name, value in ours.items() if theirs.get(name, value) != value] == ["data"]
    cfg = composed(as_yaml(FAMILIES[family]))
    train.add_defaults.__wrapped__(cfg)
    assert cfg.model.get("max_source_positions") is None and cfg.model.get("decoder_embed_path", "absent") == "absent"


def test_groups_of_a_transformer_and_a_name_alone():
    """``encoder: {layers: 2}`` is ``encoder_layers: 2``."""
    nested = from_yaml({"_name": "transformer_iwslt_de_en", "encoder": {"layers": 2}, "quant_noise": {"pq": 0.1}})
    flat = from_yaml({"_name": "transformer_iwslt_de_en", "encoder_layers": 2, "quant_noise_pq": 0.1})
    assert nested == flat
    assert (nested.encoder_layers, nested.encoder_ffn_embed_dim, nested.quant_noise_pq) == (2, 1024, 0.1)
    assert from_yaml("transformer_iwslt_de_en").encoder_layers == 6
    assert from_yaml({"_name": "lstm", "decoder_attention": False}).decoder_attention == "False"  # a text, read later
    assert from_yaml({"_name": "lstm", "dropout": None}).dropout == 0.1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"encoder_layer": 2},
            "model.encoder_layer: not an option of transformer; expected one of activation_dropout, ",
        ),
        ({"encoder_layers": "many"}, "model.encoder_layers: 'many'; invalid literal"),
        ({"dropout": [1]}, r"model.dropout: \[1\]; could not convert"),
        ({"share_all_embeddings": "yes"}, "model.share_all_embeddings: 'yes'; expected true or false"),
        ({"activation_fn": "step"}, "model.activation_fn: 'step'; expected one of relu, "),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        namespace_of({"_name": "transformer", **values}, {})


@pytest.mark.parametrize("model", [None, {"_name": "transformer_lm"}, {"_name": "unknown"}, "unknown"])
def test_other_models_are_left_alone(model):
    """Those with a dataclass, which hydra fills, and those that fairseq refuses itself."""
    assert not hasattr(from_yaml(model), "arch") or from_yaml(model).get("arch") is None


def test_command_lines_and_a_second_patch_change_nothing(data_bin):
    cfg = configuration([str(data_bin), *FAMILIES["transformer"]])
    before = cfg.model
    train.add_defaults(cfg)
    assert cfg.model is before
    patched = train.add_defaults
    patch_configuration(train)
    assert train.add_defaults is patched and patched.__wrapped__ is not patched
