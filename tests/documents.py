"""The Markdown of the repository: its links, its tables, and the code in it, taken apart so that tests can check it."""

from __future__ import annotations

import argparse
import io
import re
import runpy
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_ASSIGNMENT = re.compile(r"\w+=")
_SEPARATORS = "();<>|&"


def documents() -> list[Path]:
    """Every Markdown file of the repository; data sets, runs and virtual environments may have more, and do not count.

    Returns:
        Absolute paths.
    """
    folders = (ROOT, *(ROOT / name for name in (".github", "CUB", "ILSVRC", "Img", "tests")))
    found = [path for folder in folders for path in folder.glob("*.md")]
    return sorted([*found, *(ROOT / "utils").rglob("*.md")])


@dataclass(frozen=True)
class Command:
    """One simple command of a shell.

    Attributes:
        words: the program and its arguments, without assignments before it and redirections behind it.
        folder: in which it runs.
    """

    words: tuple[str, ...]
    folder: Path


@dataclass(frozen=True)
class Program:
    """A program of this repository.

    Attributes:
        name: as it is called, `train.py`, `CUB/BAS_inference.py` or `utils.exploratory`.
        arguments: behind it.
    """

    name: str
    arguments: tuple[str, ...]


def blocks(text: str, language: str) -> list[str]:
    """The contents of a document's fenced blocks of one language, in order."""
    return [content for name, content in _FENCE.findall(text) if name == language]


def prose(text: str) -> str:
    """A document without its fenced blocks."""
    return _FENCE.sub("", text)


def code_spans(text: str) -> list[str]:
    """What stands between backticks in a document's prose, each on one line."""
    return [" ".join(span.split()) for span in _CODE_SPAN.findall(prose(text))]


def dead_links(path: Path) -> list[str]:
    """The relative links of a document whose file or heading does not exist, as they stand there."""
    dead = []
    for target in _LINK.findall(_CODE_SPAN.sub("", prose(path.read_text(encoding="utf-8")))):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            dead.append(target)
    return dead


def missing_files(path: Path) -> list[str]:
    """The files and folders of this repository between a document's backticks that do not exist.

    A bare `name.py` may lie in any folder; data sets and runs are not the repository's.
    """
    files = {
        file.name for folder in ("CUB", "ILSVRC", "Img", "tests", "utils") for file in (ROOT / folder).rglob("*.py")
    }
    missing = []
    for span in code_spans(path.read_text(encoding="utf-8")):
        is_path = re.fullmatch(r"(?:utils|tests|CUB|ILSVRC|Img|\.ci|\.github)/(?!data|logs)[\w./]*", span)
        is_module = re.fullmatch(r"\w+\.py", span) and not (ROOT / span).is_file()
        if (is_path and not (ROOT / span).exists()) or (is_module and span not in files):
            missing.append(span)
    return missing


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(script: str, folder: Path = ROOT) -> Iterator[Command]:
    """The simple commands of a shell script, `bash -c` looked into, in order.

    Args:
        script: lines of `sh`; a `cd` moves all that follow.
        folder: where it begins.
    """
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=_SEPARATORS)
        lexer.whitespace_split = True
        words: list[str] = []
        is_target = False  # of a redirection
        for word in [*lexer, ";"]:
            is_separator = set(word) <= set(_SEPARATORS)
            if not is_separator:
                if not is_target:
                    words.append(word)
            elif set(word) <= set("<>"):
                is_target = True
                continue
            elif words:
                for command in _simple(words, folder):
                    folder = command.folder
                    yield command
                words = []
            is_target = False


def _simple(words: list[str], folder: Path) -> Iterator[Command]:
    while words and (_ASSIGNMENT.match(words[0]) or words[0] in ("exec", "srun", "export")):
        words = words[1:]
    if words[:1] == ["cd"]:
        yield Command(tuple(words), (folder / words[1]).resolve())
    elif words[:2] == ["bash", "-c"]:
        yield from commands(words[2], folder)
    elif words:
        yield Command(tuple(words), folder)


def program_of(command: Command) -> Program | None:
    """The program of this repository that a command runs, if any; torchrun's own options are read by torchrun's parser.

    Raises:
        AssertionError: there is no such program, or torchrun has no such option.
    """
    program, *arguments = command.words
    if program == "torchrun":
        from torch.distributed.run import get_args_parser

        script, arguments = _parse_torchrun(get_args_parser(), arguments)
    elif Path(program).name in ("python", "python3") and arguments[:1] == ["-m"]:
        name = arguments[1]
        return Program(name, tuple(arguments[2:])) if name.split(".")[0] in ("CUB", "Img", "tests", "utils") else None
    elif Path(program).name in ("python", "python3"):
        script, *arguments = arguments
    else:
        return None
    path = command.folder / script
    assert path.is_file(), f"{' '.join(command.words)}: there is no {path}"
    return Program(path.relative_to(ROOT).as_posix(), tuple(arguments))


def _parse_torchrun(parser: argparse.ArgumentParser, arguments: list[str]) -> tuple[str, list[str]]:
    parsed = parse(parser, arguments)
    return parsed.training_script, parsed.training_script_args


class _Found(BaseException):
    """Carries a parser out of its program, past every handler of errors."""


@cache
def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser with which a program of this repository reads its command line.

    The program is started and stopped where it is about to read.

    Args:
        name: as in :class:`Program`.
    """

    def stop(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        raise _Found(parser)

    try:
        with patch.object(argparse.ArgumentParser, "parse_known_args", stop):
            start(name)
    except _Found as found:
        return found.args[0]
    raise AssertionError(f"{name} has ended without reading its command line")


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """The options of a parser and of its commands."""
    commands = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return set(parser._option_string_actions).union(*(options_of(one) for of in commands for one in of.values()))


def start(name: str, *arguments: str) -> int:
    """Runs a program of this repository in this process, as `python` would.

    Args:
        name, arguments: as in :class:`Program`.

    Returns:
        Its exit code.
    """
    with patch.multiple(sys, argv=[name, *arguments], path=[*sys.path]), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "'.*' found in sys.modules", RuntimeWarning
        )  # it is imported by tests as well
        try:
            if name.endswith(".py"):
                runpy.run_path(str(ROOT / name), run_name="__main__")
            else:
                runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as stopped:
            return stopped.code or 0
    return 0


def parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """What a parser reads.

    Raises:
        AssertionError: it refuses the arguments; with its own words.
    """
    said = io.StringIO()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(said):
            return parser.parse_args(arguments)
    except SystemExit as stopped:
        if stopped.code == 0:  # --help
            return argparse.Namespace()
        raise AssertionError(f"{' '.join(arguments)}: {said.getvalue().splitlines()[-1]}") from None


def run_python(path: Path, names: Mapping[str, Any]) -> dict[str, Any]:
    """Runs a document's Python blocks, one after the other, in one namespace.

    Args:
        path: the document.
        names: what the blocks find there.

    Returns:
        The namespace.
    """
    namespace = dict(names)
    for block in blocks(path.read_text(encoding="utf-8"), "python"):
        exec(compile(block, str(path), "exec"), namespace)
    return namespace
