"""Repair of the checkpoint that fairseq-train resumes from: a cut one would end every further attempt."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
import zlib
from pathlib import Path

__all__ = ["is_whole", "mend_last_checkpoint"]

_SAVED = re.compile(r"checkpoint_\d+_(\d+)\.pt")


def mend_last_checkpoint(folder: Path) -> None:
    """Set a damaged ``checkpoint_last.pt`` aside, and put the newest whole ``checkpoint_EPOCH_UPDATES.pt`` there.

    Without one, fairseq-train begins anew.
    """
    last = folder / "checkpoint_last.pt"
    if not last.exists() or is_whole(last):
        return
    aside = last.with_name("checkpoint_last.damaged")
    os.replace(last, aside)
    saved = sorted(
        ((int(match[1]), path) for path in folder.glob("*.pt") if (match := _SAVED.fullmatch(path.name))), reverse=True
    )
    newest = next((path for _, path in saved if is_whole(path)), None)
    if newest is not None:
        partial = last.with_name("checkpoint_last.partial")
        shutil.copyfile(newest, partial)
        os.replace(partial, last)
    print(f"  {last}: damaged, now {aside.name}; goes on from {newest.name if newest else 'the beginning'}", flush=True)


def is_whole(path: Path) -> bool:
    """Whether all of a checkpoint is there: torch.save writes a zip file, with a checksum of every member.

    Nothing is unpickled for it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return False
