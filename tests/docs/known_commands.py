"""Whether a command of a page exists and its options are known, without running it."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import fairseq_l2t

_RECORD, _UNIT, _END = "RECORD", "\x1f", "\x1e"
_STUB = f"""#!/bin/bash
if [ "$*" = "-m fairseq_l2t" ]; then echo PACKAGE; exit; fi
printf '%s\\x1f' "$0" "$@" >> "${_RECORD}"
printf '\\x1e' >> "${_RECORD}"
"""
_PACKAGE = Path(fairseq_l2t.__file__).parent
_OPTION = re.compile(r"--[a-z][\w-]*")


def recorded(text, repository, folder):
    """The command lines of a block, as bash makes them; programs are replaced by one that writes its arguments down."""
    stubs = folder / "bin"
    stubs.mkdir()
    programs = [
        path.name for path in Path(sys.executable).parent.glob("*") if path.name.startswith(("l2t-", "fairseq-"))
    ]
    for name in [*programs, "torchrun", "python", "make", "pip", "git", "grep"]:
        _write_stub(stubs / name)
    for script in repository.glob("examples/**/*.sh"):
        _write_stub(folder / script.relative_to(repository))
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()
    record = folder / "record"
    record.touch()
    environment = {"PATH": f"{stubs}:/usr/bin:/bin", _RECORD: str(record)}
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    lines = record.read_text(encoding="utf-8").split(_END)[:-1]
    return [line.split(_UNIT)[:-1] for line in lines]


def why_unknown(command, repository):
    """What is wrong with a command line, or an empty text."""
    name = os.path.basename(command[0])
    if name.endswith(".sh"):
        return _why_unknown_script(command, repository)
    check = _CHECKS.get(name)
    if check is None:
        return f"{name}: no check of this program's options"
    try:
        return check(command[1:], repository) or ""
    except (SystemExit, ValueError) as error:
        return f"{name}: {error or 'option refused'}"


def _write_stub(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_STUB.replace("PACKAGE", str(_PACKAGE)), encoding="utf-8")
    path.chmod(0o755)


def _why_unknown_script(command, repository):
    end = command[0].partition("examples/")[2]
    path = repository / "examples" / end
    return "" if path.is_file() and os.access(path, os.X_OK) else f"{command[0]}: no such script"


def _train_teacher(arguments, repository):
    from fairseq_l2t.plugin.teacher_run_options import TeacherRunOptions

    TeacherRunOptions.parse(arguments)


def _torchrun(arguments, repository):
    from torch.distributed.run import get_args_parser

    own = get_args_parser().parse_args(arguments)
    return why_unknown([own.training_script, *own.training_script_args], repository)


def _fairseq_train(arguments, repository):
    from fairseq import options

    import fairseq_l2t.plugin  # noqa: F401  registers the task and the criterion

    # fairseq refuses a --user-dir whose name is already imported.
    own = arguments.index("--user-dir") if "--user-dir" in arguments else None
    kept = arguments if own is None else arguments[:own] + arguments[own + 2 :]
    options.parse_args_and_arch(options.get_training_parser(), input_args=kept)


def _fairseq_generate(arguments, repository):
    from fairseq import options

    options.parse_args_and_arch(options.get_generation_parser(), input_args=arguments)


def _classify(arguments, repository):
    from fairseq_l2t.classification.options import parse

    parse(arguments)


def _average(arguments, repository):
    from fairseq_l2t.cli.average import options_of

    options_of(arguments)


def _make(arguments, repository):
    targets = re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    unknown = [argument for argument in arguments if "=" not in argument and argument not in targets]
    return f"make: no target {unknown[0]}" if unknown else ""


def _python(arguments, repository):
    if arguments[0] != "-m":
        sources, rest = [repository / arguments[0]], arguments[1:]
        if not sources[0].is_file():
            return f"python: no file {arguments[0]}"
    else:
        module, rest = arguments[1], arguments[2:]
        if importlib.util.find_spec(module) is None:
            return f"python: no module {module}"
        sources = (repository / module.partition(".")[0]).rglob("*.py")
    absent = [
        path for path in rest if path.endswith((".yaml", ".py", ".jsonl.in")) and not (repository / path).exists()
    ]
    if absent:
        return f"python: no file {absent[0]}"
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    given = {found[0] for argument in rest if (found := _OPTION.match(argument))}
    unknown = sorted(one for one in given if one not in text and one[2:].replace("-", "_") not in text)
    return f"python: no option {unknown[0]} in the source of {arguments[1]}" if unknown else ""


def _anything(arguments, repository):
    return ""


_CHECKS = {
    "fairseq-hydra-train": _anything,
    "l2t-train-teacher": _train_teacher,
    "l2t-doctor": _train_teacher,
    "torchrun": _torchrun,
    "l2t-classify": _classify,
    "l2t-average": _average,
    "fairseq-train": _fairseq_train,
    "fairseq-generate": _fairseq_generate,
    "make": _make,
    "python": _python,
    "pip": _anything,
    "git": _anything,
    "grep": _anything,
}
