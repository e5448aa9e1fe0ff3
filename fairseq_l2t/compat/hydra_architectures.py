"""Architectures in the YAML of fairseq-hydra-train, whose defaults fairseq loses.

Versions: fairseq 0.12.2 with omegaconf 2.0. Translation models have no dataclass. Their functions of defaults read
``getattr(args, "dropout", 0.1)`` from a configuration that gives None for what is absent. ``transformer_iwslt_de_en``
silently becomes a Transformer of other sizes, other models fail, and the first checkpoint ends the run:
``TypeError: '>' not supported between instances of 'NoneType' and 'int'``. An unknown option is ignored.
Without it fails: tests/compat/test_hydra_architectures.py::test_an_architecture_has_its_own_defaults.

This file is loaded by path, before the package may be imported.
"""

import argparse
import functools
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, cast

_MARK = "fairseq_l2t_knows_architectures"
_NESTED = ("encoder", "decoder", "quant_noise")
"""Groups of options of a Transformer, which YAML may nest: ``encoder: {layers: 2}`` is ``encoder_layers: 2``."""


def patch_configuration(train: ModuleType) -> None:
    """Give a model without dataclass the options that ``fairseq-train --arch`` gives it.

    ``train`` is the module ``fairseq_cli.train``, just executed. Its ``add_defaults`` runs when ``--user-dir`` has been
    imported and before the model is built. Command lines of fairseq-train are not affected.
    """
    original: Callable[[Any], None] = train.add_defaults
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def add_defaults(cfg: Any) -> None:
        from fairseq.dataclass.utils import omegaconf_no_object_check
        from omegaconf import OmegaConf

        original(cfg)
        model = cfg.get("model")
        if isinstance(model, str):
            model = OmegaConf.create({"_name": model})
        if not OmegaConf.is_dict(model) or not _lacks_dataclass(model.get("_name")):
            return
        task = _plain(cfg.task) if OmegaConf.is_dict(cfg.task) else {}
        with omegaconf_no_object_check():
            cfg.model = namespace_of(_plain(model), task)

    setattr(add_defaults, _MARK, True)
    train.add_defaults = add_defaults  # type: ignore[attr-defined]  # replaces a function of the module


def _plain(node: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    return cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True))


def _lacks_dataclass(name: Any) -> bool:
    from fairseq.models import ARCH_MODEL_NAME_REGISTRY, ARCH_MODEL_REGISTRY, MODEL_DATACLASS_REGISTRY

    names = {name, ARCH_MODEL_NAME_REGISTRY.get(name)}
    return name in ARCH_MODEL_REGISTRY and not names & MODEL_DATACLASS_REGISTRY.keys()


def namespace_of(model: Mapping[str, Any], task: Mapping[str, Any]) -> argparse.Namespace:
    """Return the options of a model as ``fairseq-train`` gives them to it.

    Args:
        model: ``_name``, an architecture, and the options given for it; null counts as not given.
        task: the options of the task, which a model may read too.

    Raises:
        ValueError: an option that the architecture does not have, or a value it does not take.
    """
    from fairseq.dataclass.utils import _set_legacy_defaults
    from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY

    name = model["_name"]
    actions = _options_of(ARCH_MODEL_REGISTRY[name])
    result = argparse.Namespace(**task)
    for key, value in _flat(model).items():
        if key not in actions and key not in task:
            raise ValueError(f"model.{key}: not an option of {name}; expected one of {', '.join(sorted(actions))}")
        if value is not None:
            setattr(result, key, _parsed(key, value, actions[key]) if key in actions else value)
    ARCH_CONFIG_REGISTRY[name](result)
    _set_legacy_defaults(result, ARCH_MODEL_REGISTRY[name])
    result._name = result.arch = name
    return result


def _flat(model: Mapping[str, Any]) -> dict[str, Any]:
    flat = {}
    for key, value in model.items():
        if key in _NESTED and isinstance(value, Mapping):
            flat.update({f"{key}_{inner}": given for inner, given in value.items()})
        elif key not in ("_name", "arch"):
            flat[key] = value
    return flat


def _options_of(model_class: Any) -> dict[str, argparse.Action]:
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS, allow_abbrev=False, add_help=False)
    model_class.add_args(parser)
    return {action.dest: action for action in parser._actions}


def _parsed(key: str, value: Any, action: argparse.Action) -> Any:
    """Return a value of YAML as the option's own parser gives it: some options are texts that fairseq reads later."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError(f"model.{key}: {value!r}; expected true or false")
        return value
    parse = action.type if callable(action.type) else str
    try:
        parsed = parse(str(value))
    except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
        raise ValueError(f"model.{key}: {value!r}; {error}") from error
    if action.choices is not None and parsed not in action.choices:
        raise ValueError(f"model.{key}: {value!r}; expected one of {', '.join(map(str, action.choices))}")
    return parsed
