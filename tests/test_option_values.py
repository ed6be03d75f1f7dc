"""Protects every option of every command: any value is taken, or refused in a sentence with exit code 2."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from unittest.mock import patch

import pytest

import train
from Img import __main__ as figures
from tests.commands import run_inference, run_training
from utils.demo import ablation
from utils.exploratory import __main__ as exploratory
from utils.inference.arguments import parse_arguments as parse_inference
from utils.inference.localizer import load_localizer
from utils.system.errors import UsageError
from utils.system.options import CommandParser, name_of
from utils.training.arguments import parse_arguments as parse_training

Parse = Callable[[list[str]], argparse.Namespace]
COMMANDS: dict[str, Parse] = {
    "train": lambda argv: parse_training("", train.DATASETS, train.DEMO, argv),
    "train --demo": lambda argv: parse_training("", train.DATASETS, train.DEMO, ["--demo", *argv]),
    "evaluate": lambda argv: parse_inference(train.DATASETS["CUB"], argv),
    "evaluate --sweep": lambda argv: parse_inference(train.DATASETS["ILSVRC"], ["--sweep", *argv]),
    "ablation": ablation.parse_arguments,
    "exploratory": lambda argv: exploratory.parse_arguments(["--arch", "vgg", *argv]),
    "figures": lambda argv: figures.parse_arguments(["--run", "demo_run", *argv]),
}
NUMBERS = ["-1", "0", "nan", "inf", "-inf", "1e20", "-1e20", "1e400", "1e-400", str(10**30), "9" * 5000, "0.5", "1e308"]
WORDS = ["", " ", "abc", "0x10", "1,5", "½", "٣", "%s", "%(default)s", "{}", "\n", "a" * 100_000, "--", "-", "\0"]


def options_of(parse: Parse) -> list[argparse.Action]:
    """The options of the parser that a command makes."""
    seen: list[CommandParser] = []
    with (
        patch.object(CommandParser, "parse_args", lambda parser, argv: seen.append(parser) or parser.exit()),
        suppress(SystemExit),
    ):
        parse([])
    (parser,) = seen
    return [action for action in parser._actions if action.option_strings and action.dest != "help"]


def values(content: object) -> Iterator[object]:
    if isinstance(content, Mapping):
        yield from values([*content.values()])
    elif isinstance(content, list | tuple):
        for one in content:
            yield from values(one)
    elif is_dataclass(content):
        yield from values(vars(content))
    else:
        yield content


@pytest.mark.parametrize("command", COMMANDS)
def test_any_value_of_any_option(capsys, command: str) -> None:
    """Exit code 2 or acceptance, nothing else raised; an accepted number is finite and of a size that can be counted;
    an empty value is refused by every option that takes one."""
    parse = COMMANDS[command]
    options = options_of(parse)
    assert len(options) >= 4
    for action in options:
        for name in action.option_strings:
            for value in [*NUMBERS, *WORDS]:
                # Behind a space, what begins with a dash or is empty may be taken for something else.
                for argv in ([f"{name}={value}"], [name, value])[: 1 if value[:1] not in ("", "-") else 2]:
                    try:
                        parsed = parse(argv)
                    except SystemExit as stop:
                        err = capsys.readouterr().err
                        assert stop.code == 2 and "error: " in err, (argv, err[-300:])
                        continue
                    assert value or action.nargs == 0, argv
                    for number in values([vars(parsed)]):
                        if isinstance(number, int | float):
                            assert math.isfinite(number) and abs(number) < 2**63 or isinstance(number, float), argv


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_not_abbreviated(capsys, command: str) -> None:
    """Protects from one option taken for another: a name cut short by a letter is no option of any command."""
    parse = COMMANDS[command]
    options = options_of(parse)
    known = {name for action in options for name in action.option_strings}
    for name in sorted(known):
        if name_of(name[:-1]) in map(name_of, known) or len(name) < 4:
            continue
        with pytest.raises(SystemExit) as stop:
            parse([f"{name[:-1]}=1"])
        usage, error = capsys.readouterr().err.splitlines()  # no forty lines of options above what is wrong
        assert stop.value.code == 2 and usage.startswith("usage: ") and "unrecognized arguments" in error, name
        assert re.search(r" \(is --\S+ meant\?\)$", error), error


@pytest.mark.parametrize("command", COMMANDS)
def test_dashes_and_underscores_are_the_same(capsys, command: str) -> None:
    """Protects who types `--batch-size` for `--batch_size`: both spellings of every option say the same, values and
    words behind `--` stay as they are."""
    parse = COMMANDS[command]
    names = [name for action in options_of(parse) for name in action.option_strings]

    def answer(word: str) -> object:
        try:
            return vars(parse([word]))
        except SystemExit:
            return capsys.readouterr().err

    for name in names:
        for value in ("=a-b_c", "=1", ""):
            dashes, underscores = name.replace("_", "-"), f"--{name[2:].replace('-', '_')}"
            assert answer(dashes + value) == answer(underscores + value) == answer(name + value), (name, value)


@pytest.mark.parametrize("extra", [["--see", "5"], ["--epochs", "0"], ["--lr", "nan"], ["--root", "x"], ["word"]])
def test_options_behind_the_dashes_are_those_of_training(capsys, extra: list[str]) -> None:
    """Protects the grid: what no run would take ends the command, before fifteen runs fail of it."""
    with pytest.raises(SystemExit) as stop:
        ablation.parse_arguments(["--", *extra])
    assert stop.value.code == 2
    assert "train.py does not take the options behind --: " in capsys.readouterr().err
    assert ablation.parse_arguments(["--", "--epochs", "4", "--lr=0.1"]).extra == ["--epochs", "4", "--lr=0.1"]


@pytest.mark.parametrize("option", [["--local-rank=0"], ["--local_rank=1"], ["--local_rank", "0"], ["--local-rank"]])
@pytest.mark.parametrize("run", [run_training, lambda *argv: run_inference("CUB", *argv)])
def test_old_launcher(capsys, run: Callable, option: list[str]) -> None:
    """Protects those who come from torch.distributed.launch: the sentence names what to use."""
    assert run(*option) == 2
    assert "start the processes with torchrun" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--num_workers", "257"], "argument --num_workers: 257 must be at least 0 and at most 256"),
        (["--prefetch", "65"], "argument --prefetch: 65 must be at least 1 and at most 64"),
        (["--batch_size", str(10**30)], "must be at least 1 and at most 1000000000"),
        (["--crop_size", "5000"], "argument --crop_size: 5000 must be at least 16 and at most 4096"),
        (["--timeout", "1e20"], "argument --timeout: 1e20 must be greater than 0 and at most"),
        (["--root", ""], "argument --root/--data: an empty name is none"),
        (["--save_path="], "argument --save_path: an empty name is none"),
        (["--pretrained", ""], "argument --pretrained: an empty name is none"),
        (["--resume", ""], "argument --resume: an empty name is none"),
        (["--device", ""], "argument --device: an empty name is none"),
        (["--device", "a" * 5000], "argument --device: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...' is too long"),
        (["--resume", "a" * 300], "argument --resume: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...' is too long"),
        (["--lr", "1e20"], "argument --lr: 1e20 must be greater than 0 and at most"),
        (["--bas_weight", "1e7"], "argument --bas_weight: 1e7 must be at least 0 and at most"),
        (["--lr_decay", "10"], "argument --lr_decay: 10 must be greater than 0 and at most 1"),
        (["--momentum", "1.5"], "argument --momentum: 1.5 must be at least 0 and at most 1"),
        (["--lr_steps", "3", "3"], "--lr_steps names an epoch twice"),
        (["--lr_steps", "3", "--poly_steps", "9"], "give --lr_steps, falls at epochs, or --poly_steps"),
        (["--epochs", "9" * 5000], "9...' is not a number"),
    ],
)
def test_limits(capsys, argv: list[str], words: str) -> None:
    """Protects the machine and the meaning: bounds of what would exhaust it, no empty name taken for this folder."""
    with pytest.raises(SystemExit):
        parse_training("", train.DATASETS, train.DEMO, argv)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--resume", "--save_path", "--pretrained", "--root"])
def test_links_that_lead_to_themselves(tmp_path, capsys, option: str) -> None:
    """Protects from a traceback of Python's own: the option is named before any file is looked for."""
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(SystemExit) as stop:
        parse_training("", train.DATASETS, train.DEMO, [option, str(loop)])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and option in err and "is a link that leads to itself" in err


@pytest.mark.parametrize(
    "options", [{"device": ""}, {"checkpoint": ""}, {"top_k": 10**30}, {"threshold": float("nan")}]
)
def test_options_in_python(options: dict) -> None:
    """Protects `load_localizer`: the same values are wrong as on the command line, as an exception of this project."""
    with pytest.raises(UsageError):
        load_localizer(train.DATASETS["CUB"], "vgg", **options)


def test_home_behind_an_equals_sign(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """Protects from a folder called ~: shells put the home for `--save ~/x`, not for `--save=~/x`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    command = parse_inference(train.DATASETS["CUB"], ["--save=~/x", "--images=~/y"])
    assert (command.settings.save, command.settings.images) == (tmp_path / "x", (str(tmp_path / "y"),))
