"""Copies of a DATA_BIN with further splits, made of the splits it has."""

import shutil


def with_splits(data_bin, folder, **splits):
    """Copy ``data_bin`` to ``folder``; each further argument is a new split and the name of the split it repeats.

    The binary files alone are copied: a copy needs the dictionaries beside them and nothing else.
    """
    folder.mkdir()
    for path in data_bin.iterdir():
        if path.name.startswith(("dict.", "train.", "valid.", "test.")):
            shutil.copy(path, folder / path.name)
    for split, origin in splits.items():
        for path in data_bin.glob(f"{origin}.*"):
            shutil.copy(path, folder / path.name.replace(origin, split, 1))
    return folder


def with_short_side(data_bin, folder, split, language, origin="test"):
    """Copy ``data_bin`` to ``folder``, with one side of ``split`` taken from the split ``origin``."""
    with_splits(data_bin, folder)
    for ending in ("bin", "idx"):
        shutil.copy(data_bin / f"{origin}.de-en.{language}.{ending}", folder / f"{split}.de-en.{language}.{ending}")
    return folder
