"""The `veridical` command: the first word picks a module, which is imported only then."""

from __future__ import annotations

import difflib
import errno
import importlib
import io
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from veridical import __version__
from veridical.errors import Notice, UserError, printable
from veridical.vlm.model.load_options import silence_kernel_advice

_DISK = frozenset(
    getattr(errno, name, -1)
    for name in [
        "ENOSPC",
        "EDQUOT",
        "EROFS",
        "EACCES",
        "EPERM",
        "ENOTDIR",
        "EISDIR",
        "ENAMETOOLONG",
        "EMFILE",
        "EIO",
        "ELOOP",
    ]
)
_DISK_SAYS = re.compile("No space left on device|Read-only file system|Disk quota exceeded|Input/output error")


class Command(NamedTuple):
    """Where a command lives: the module holds `config` (a frozen dataclass) and `run(config)`.

    `subject` is the setting that a first word without dashes gives; with `own_file`, that of a settings file too, which
    the command reads itself.
    """

    module: str
    config: str
    summary: str
    subject: str = ""
    own_file: bool = False


COMMANDS: Mapping[str, Command] = {
    "run": Command("veridical.run.command", "RunConfig", "From a folder of images to a report: build, align, eval."),
    "demo": Command("veridical.demo", "DemoConfig", "See it all on the bundled model: build, align, eval, report."),
    "build": Command(
        "veridical.pairs.produce", "BuildConfig", "Make preference pairs that expose what a model makes up."
    ),
    "align": Command("veridical.align.command", "AlignConfig", "Train an adapter, or the language model, on pairs."),
    "loop": Command(
        "veridical.loops.command",
        "LoopConfig",
        "Build and align in turn, by rounds or by steps: online, mixed, SAPO, ...",
    ),
    "rl": Command("veridical.rl.command", "RlConfig", "Train by policy gradient on rewards: GRPO, RLOO or PPO."),
    "judge train reward": Command(
        "veridical.judge_training.reward", "RewardConfig", "Train a reward model on pairs, by LoRA or in full."
    ),
    "judge train reward-probe": Command(
        "veridical.judge_training.reward_probe", "ProbeConfig", "Train a linear reward on a frozen model's states."
    ),
    "judge train verifier": Command(
        "veridical.judge_training.verifier", "VerifierConfig", "Train a checker of sentences on what a judge finds."
    ),
    "judge eval": Command(
        "veridical.judge_eval.command",
        "JudgeEvalConfig",
        "Measure a judge on labelled pairs: veridical judge eval JUDGE.",
        "judge.name",
    ),
    "eval": Command(
        "veridical.protocols.command", "EvalConfig", "Measure what models make up, and what they leave out."
    ),
    "score": Command(
        "veridical.protocols.score", "ScoreConfig", "Score answers on disk: veridical score PROTOCOL.", "protocol"
    ),
    "study": Command(
        "veridical.study.command",
        "StudyConfig",
        "Run a grid of runs, and answer which choice made the difference.",
        "file",
        own_file=True,
    ),
    "study init": Command("veridical.study.starting", "InitConfig", "Write a study to start from."),
    "publish": Command(
        "veridical.align.publishing", "PublishConfig", "Merge an adapter into its model, push results to the Hub."
    ),
    "view": Command("veridical.study.view", "ViewConfig", "Serve studies and runs to a browser, live.", "runs"),
    "recipe list": Command(
        "veridical.recipes.listing", "RecipeListConfig", "List published methods that one command runs."
    ),
    "recipe show": Command("veridical.recipes.showing", "ShowConfig", "Print a recipe: recipe show NAME.", "name"),
    "recipe run": Command(
        "veridical.recipes.running", "RunConfig", "Run a paper's method with its settings: recipe run NAME.", "name"
    ),
    "report": Command("veridical.report.command", "ReportConfig", "Write one HTML file about finished runs."),
    "models": Command("veridical.vlm.command", "ModelsConfig", "Print which families of models were tried, and how."),
    "list": Command(
        "veridical.catalogue", "ListConfig", "List what there is to choose from: veridical list KIND.", "kind"
    ),
    "world": Command("veridical.world.command", "WorldConfig", "Write pictures of the picture world as a folder."),
    "data paint": Command(
        "veridical.pairs.painting", "PaintConfig", "Make pictures for prompts, by a text-to-image model."
    ),
    "data answers": Command(
        "veridical.pairs.answers", "AnswersConfig", "Let several models answer records, as a pool for `ranked`."
    ),
    "data import": Command(
        "veridical.pairs.importing", "ImportConfig", "Read a published preference set into a folder of pairs."
    ),
    "data join": Command("veridical.pairs.joined", "JoinConfig", "Join sets of pairs, or draw a part of one."),
    "data check": Command(
        "veridical.pairs.audit.command", "CheckConfig", "Find what is wrong with a set of pairs, and clean it."
    ),
    "data compare": Command("veridical.pairs.compare", "CompareConfig", "Show how sets of pairs differ, side by side."),
    "data export": Command(
        "veridical.pairs.export", "ExportConfig", "Write a build's pairs in another trainer's format."
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line. Exits 2 after a mistake of the user's, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no Unicode, a terminal no UTF-8
    silence_kernel_advice()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            status = _dispatch(arguments)
    except UserError as error:
        print(f"veridical: {printable(str(error))}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        again = shlex.join(["veridical", *arguments])
        print(f"\nInterrupted. Finished work is kept; to continue, run again: {again}", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        # The reader of our output went away (`veridical ... | head`); nothing is left to tell it.
        sys.stderr.close()
        status = 141
    except Exception as error:
        if (sentence := _about_disk(error)) is None:
            raise
        print(f"veridical: {printable(sentence)}", file=sys.stderr)
        status = 2
    sys.exit(status)


def _about_disk(error: Exception) -> str | None:
    """What a full, read-only or forbidding disk said, whichever library met it; None for any other error."""
    from veridical.files import final_name

    named = getattr(error, "filename2", None) or getattr(error, "filename", None)
    path = Path(os.fsdecode(named)) if isinstance(named, str | bytes | os.PathLike) else None
    # A file that is being written and can't be made, as in /proc.
    unwritable = isinstance(error, FileNotFoundError) and path is not None and final_name(path) != path
    where: Path | str
    if isinstance(error, OSError) and (error.errno in _DISK or unwritable):
        where = "a file" if path is None else final_name(path)
        said = error.strerror
    elif found := _DISK_SAYS.search(str(error)):
        where, said = "a file", found.group()
    else:
        return None
    return (
        f"{where}: can't be read or written ({said}). Finished work is kept: make room, or give another place, and run "
        "the same command again."
    )


def _show_warning(usual: Callable[..., None], message: Warning | str, category: type[Warning], *where: Any) -> None:
    """A warning about the user's data as a sentence; any other as Python shows it."""
    if issubclass(category, Notice):
        print(f"Warning: {printable(str(message))}", file=sys.stderr)
    else:
        usual(message, category, *where)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        print(f"veridical {__version__}")
        return 0
    name, rest = _pick(arguments)
    _run(name, COMMANDS[name], rest)
    return 0


def _pick(arguments: list[str]) -> tuple[str, list[str]]:
    """The command's name, which is one to three words, and what follows it."""
    for words in (3, 2, 1):
        name = " ".join(arguments[:words])
        if len(arguments) >= words and name in COMMANDS:
            return name, arguments[words:]
    begun = " ".join(takewhile(lambda word: not word.startswith("-"), arguments))
    if begun and (within := [f"`veridical {name}`" for name in COMMANDS if name.startswith(f"{begun} ")]):
        *first, last = within
        raise UserError(f"`veridical {begun}` needs another word: {', '.join(first)} or {last}.")
    near = difflib.get_close_matches(" ".join(arguments[:2]), COMMANDS, n=1)
    hint = f"did you mean `veridical {near[0]}`?" if near else "`veridical --help` lists the commands."
    raise UserError(f"no command {arguments[0]!r}; {hint}")


def _run(name: str, command: Command, arguments: list[str]) -> None:
    from veridical.config import dotted, flags, parse, read_yaml
    from veridical.object_storage import working

    module = importlib.import_module(command.module)
    arguments = _with_subject(command, arguments)
    source = Path(arguments[0]) if arguments and arguments[0].endswith((".yaml", ".yml")) else None
    settings = read_yaml(source) if source else {}
    given = arguments[1:] if source else arguments
    config_type = _config_type(module, command, {**dotted(settings), **_choices(given)})
    if source:
        given = [*flags(settings, config_type, source), *given]
    with working(parse(config_type, given, f"veridical {name}", command.summary), name) as config:
        module.run(config)


def _with_subject(command: Command, arguments: list[str]) -> list[str]:
    """The arguments with a first word that is neither flag nor settings file as the flag it stands for."""
    if (
        command.subject
        and arguments
        and not arguments[0].startswith("-")
        and (command.own_file or not arguments[0].endswith((".yaml", ".yml")))
    ):
        return [f"--{command.subject}", *arguments]
    return arguments


def _config_type(module: Any, command: Command, choices: Mapping[str, str]) -> Any:
    """The settings class; where it depends on a choice (build: the construction), the module picks it."""
    if hasattr(module, "config_type"):
        return module.config_type(choices)
    return getattr(module, command.config)


def _choices(arguments: Sequence[str]) -> dict[str, str]:
    """What the flags say before they are parsed, the last of each; several values are joined by blanks."""
    found: dict[str, str] = {}
    key = ""
    for word in arguments:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            key = name.replace("-", "_")
            found[key] = value
            key = "" if equals else key
        elif key:
            found[key] = f"{found[key]} {word}".strip()
    return found


def _overview() -> str:
    width = max(map(len, COMMANDS), default=0)
    rows = (f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    return "\n".join(
        [
            "usage: veridical COMMAND [SETTINGS.yaml] [--setting value ...]",
            "",
            "Make a vision-language model say only what it sees: build pairs, align, measure, report.",
            "",
            *rows,
            "",
            "`veridical COMMAND --help` lists a command's settings. A YAML file gives the same settings",
            "by name; flags win over it. Ctrl-C stops any command, and running it again continues.",
        ]
    )
