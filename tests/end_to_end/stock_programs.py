"""What programs that do not know the plugin do with a student's checkpoint.

python -m tests.end_to_end.stock_programs DATA_BIN FOLDER: prints {program: its result, or its error}, as JSON.
"""

import argparse
import json
import sys
from pathlib import Path

import fairseq.models
import fairseq.tasks
import torch
from fairseq import checkpoint_utils, hub_utils

FILE = "checkpoint_last.pt"


def load(_data, folder):
    """What fairseq-generate, fairseq-interactive and most other programs call."""
    _, cfg, task = checkpoint_utils.load_model_ensemble_and_task([str(folder / FILE)])
    return [type(task).__name__, cfg.criterion._name]


def hub(data, folder):
    """``from_pretrained`` of fairseq's models, which torch.hub calls."""
    found = hub_utils.from_pretrained(str(folder), FILE, str(data))
    interface = hub_utils.GeneratorHubInterface(found["args"], found["task"], found["models"])
    return interface.translate(["der hund"], beam=1, max_len_b=5)


def convert(data, folder):
    """The calls of CTranslate2's converter (4.8, ``ctranslate2/converters/fairseq.py``), on its way to the weights."""
    checkpoint = torch.load(folder / FILE, map_location="cpu", weights_only=True)
    args = checkpoint["args"] or checkpoint["cfg"]["model"]
    args.data = str(data)
    task = fairseq.tasks.setup_task(args)
    model = fairseq.models.build_model(args, task)
    model.load_state_dict(checkpoint["model"])
    return [fairseq.models.ARCH_MODEL_NAME_REGISTRY[args.arch], len(task.target_dictionary)]


def build_criterion(_data, folder):
    """What fairseq-validate does after loading, and the measures that it reports."""
    (model,), cfg, task = checkpoint_utils.load_model_ensemble_and_task([str(folder / FILE)])
    criterion = task.build_criterion(cfg.criterion)
    model.eval()
    criterion.eval()
    task.load_dataset("valid", combine=False, epoch=1)
    dataset = task.dataset("valid")
    _, _, logged = criterion(model, dataset.collater([dataset[number] for number in range(len(dataset))]))
    return {name: float(logged[name]) for name in ("loss", "nll_loss", "n_correct", "ntokens")}


def main(data, folder):
    """Try each program on one checkpoint."""
    results = {}
    for program in (load, hub, convert, build_criterion):
        try:
            results[program.__name__] = program(Path(data), Path(folder))
        except (AssertionError, KeyError) as error:
            results[program.__name__] = f"{type(error).__name__}: {error}"[:80]
    loaded = [name for name in sys.modules if name.partition(".")[0] == "fairseq_l2t"]
    print(json.dumps({"plugin": loaded, **results}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("folder", nargs="+")
    options = parser.parse_args()
    for each in options.folder:
        main(options.data, each)
