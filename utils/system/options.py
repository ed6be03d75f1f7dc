"""Settings that are options: a dataclass's field carries its help and its range, and one loop makes the command line.

    @dataclass(frozen=True)
    class Settings:
        epochs: int = option("passes over the training pictures", POSITIVE, default=100)

:func:`add_options` adds `--epochs N` to a parser, :func:`settle` lays what was given over the defaults, and
:func:`check` holds values that come from a file, or from Python, to the same ranges.
"""

from __future__ import annotations

import argparse
import errno
import math
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from utils.system.errors import UsageError

T = TypeVar("T")
MOST = 10**9  # of whatever is counted and has no narrower limit: an answer, and no way to exhaust the machine
LARGEST_FACTOR = 1e6  # of rates and weights: with larger ones float32 soon holds nothing that is finite
LARGEST_SIDE = 4096  # pixels; a picture of this side takes 200 MB


class CommandParser(argparse.ArgumentParser):
    """What all commands' parsers have in common.

    Help comes as it is written, and a wrong word under one line of usage instead of forty. Every option goes by its
    whole name alone (an abbreviation would change its meaning with the next option that begins like it), with dashes or
    underscores.
    """

    def __init__(self, usage: str = "%(prog)s [options]", **options: Any) -> None:
        help_as_written = argparse.RawDescriptionHelpFormatter
        super().__init__(usage=usage, formatter_class=help_as_written, allow_abbrev=False, **options)

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """See argparse; the names of options are turned into the spelling they were added in, and an option that there
        is none of ends the command, with the one that it may be meant for."""
        words = sys.argv[1:] if args is None else list(args)
        end = words.index("--") if "--" in words else len(words)
        spelled = {name_of(option): option for option in self._option_string_actions if option.startswith("--")}

        def respell(word: str) -> str:
            option, equals, value = word.partition("=")
            return spelled.get(name_of(option), option) + equals + value if word.startswith("--") else word

        known, unknown = super().parse_known_args([*map(respell, words[:end]), *words[end:]], namespace)
        if unknown:  # here, since a sub-command's parser is asked no further
            from difflib import get_close_matches  # here: help comes sooner without it

            option = next((word.partition("=")[0] for word in unknown if word.startswith("-")), "")
            near = get_close_matches(name_of(option), spelled, n=1, cutoff=0.6)
            hint = f" (is {spelled[near[0]]} meant?)" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return known, []


def name_of(option: str) -> str:
    """The name in `--name`, `--name=value` or with dashes for underscores, by which options are compared."""
    return option.partition("=")[0].removeprefix("--").replace("-", "_")


class RaisingParser(CommandParser):
    """A parser whose errors are a :class:`UsageError`, for options that do not come from this command line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


class Kind(ABC):
    """What values an option takes."""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """What `add_argument` is told of it; as `type` itself, where it is callable on the text of a command line."""

    @abstractmethod
    def check(self, value: Any) -> None:
        """Raises ValueError, in words that follow the option's name, if a Python value is none of this kind."""


@dataclass(frozen=True)
class Number(Kind):
    """A finite number of `kind` in [low, high], or in (low, high] where `open_low`."""

    kind: type[int] | type[float]
    low: float
    high: float = math.inf
    open_low: bool = False

    def arguments(self) -> dict[str, Any]:
        return {"type": self}

    def __call__(self, text: str) -> int | float:
        try:
            value = self.kind(text)
            is_finite = math.isfinite(value)
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(f"{_shown(text)!r} is not a number of the wanted kind") from None
        if not is_finite or not self._is_inside(value):
            raise argparse.ArgumentTypeError(f"{_shown(text)} {self._range()}")
        return value

    def check(self, value: Any) -> None:
        kind = Real if self.kind is float else Integral  # NumPy's as well
        if isinstance(value, bool) or not isinstance(value, kind):
            raise ValueError(f"{_shown(repr(value))} must be {'a' if kind is Real else 'a whole'} number")
        if not math.isfinite(value) or not self._is_inside(value):
            raise ValueError(f"{_shown(str(value))} {self._range()}")

    def _is_inside(self, value: Any) -> bool:
        return self.low <= value <= self.high and not (self.open_low and value == self.low)

    def _range(self) -> str:
        bound = f"greater than {self.low}" if self.open_low else f"at least {self.low}"
        return f"must be {bound}" + (f" and at most {self.high}" if self.high != math.inf else "")


@dataclass(frozen=True)
class Several(Kind):
    """Any number of values of one kind, as a tuple; `least` of them."""

    kind: Kind
    least: int = 1

    def arguments(self) -> dict[str, Any]:
        return {**self.kind.arguments(), "nargs": "+" if self.least else "*", "action": _StoreTuple}

    def check(self, value: Any) -> None:
        if not isinstance(value, tuple | list) or len(value) < self.least:
            raise ValueError(f"{value!r} must be a tuple of {self.least} or more")
        for one in value:
            self.kind.check(one)


class Choice(Kind):
    """One of several names.

    Args:
        names: to choose from.
        bare: what the option means without a value.
        off: what `--no-<name>` means; then True and False stand for `bare` and `off`, too.
    """

    def __init__(self, names: Iterable[str], bare: str | None = None, off: str | None = None) -> None:
        self.names = tuple(names)
        self.bare = bare
        self.off = off

    def arguments(self) -> dict[str, Any]:
        bare = {"nargs": "?", "const": self.bare} if self.bare else {}
        return {"choices": self.names, **bare} | ({"action": _StoreUnlessOff, "off": self.off} if self.off else {})

    def check(self, value: Any) -> None:
        if value not in self.names and not (self.off and isinstance(value, bool)):
            raise ValueError(f"invalid choice: {_shown(repr(value))} (choose from {', '.join(self.names)})")


class Flag(Kind):
    """Yes or no, `--name` and `--no-name`; `--name` alone where it is a `switch`."""

    def __init__(self, is_switch: bool = False) -> None:
        self.is_switch = is_switch

    def arguments(self) -> dict[str, Any]:
        # None where it is not given, whatever it stands for then.
        return {"action": "store_true" if self.is_switch else argparse.BooleanOptionalAction, "default": None}

    def check(self, value: Any) -> None:
        if not isinstance(value, bool):
            raise ValueError(f"{_shown(repr(value))} must be True or False")


class Name(Kind):
    """A name that is not empty, as an unset variable of a shell would give it, nor one that no file could have, nor
    that of a link which leads to itself."""

    def __init__(self, bare: str | None = None) -> None:
        self.bare = bare

    def arguments(self) -> dict[str, Any]:
        return {"type": self} | ({"nargs": "?", "const": self.bare} if self.bare else {})

    def __call__(self, text: str) -> str:
        if not text or "\0" in text:
            raise argparse.ArgumentTypeError("an empty name is none; leave the option out, or name something")
        text = os.path.expanduser(text)  # shells leave the ~ of --save=~/maps as it is
        try:
            os.stat(text)
        except OSError as error:
            faults = {errno.ENAMETOOLONG: "is too long for a name", errno.ELOOP: "is a link that leads to itself"}
            if error.errno in faults:
                raise argparse.ArgumentTypeError(f"{_shown(text)!r} {faults[error.errno]}") from None
        return text

    def check(self, value: Any) -> None:
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError(f"{_shown(repr(value))} must be a name")


class Place(Kind):
    """A file or folder. (Python takes an empty name for the folder that the command is run in.)"""

    def arguments(self) -> dict[str, Any]:
        return {"type": self}

    def __call__(self, text: str) -> Path:
        return Path(NAME(text))

    def check(self, value: Any) -> None:
        if not isinstance(value, str | os.PathLike) or not str(value):
            raise ValueError(f"{_shown(repr(value))} must be a file or folder")


POSITIVE = Number(int, 1, MOST)
NATURAL = Number(int, 0, MOST)
SIDE = Number(int, 16, LARGEST_SIDE)  # below 16 pixels nothing is left of the picture behind five halvings
SEED = Number(int, 0, 2**63 - 1)
POSITIVE_FACTOR = Number(float, 0, LARGEST_FACTOR, open_low=True)
FACTOR = Number(float, 0, LARGEST_FACTOR)
SHARE = Number(float, 0, 1)
POSITIVE_SHARE = Number(float, 0, 1, open_low=True)
FLAG = Flag()
SWITCH = Flag(is_switch=True)
NAME = Name()
PLACE = Place()


class _StoreTuple(argparse.Action):
    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: Any = None) -> None:
        setattr(namespace, self.dest, tuple(values))


class _StoreUnlessOff(argparse.Action):
    """`--name VALUE`, `--name` and `--no-name`."""

    def __init__(self, *args: Any, off: str, **more: Any) -> None:
        super().__init__(*args, **more)
        self._off = off

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: Any = None) -> None:
        if str(option).startswith("--no-"):
            if values != self.const:
                parser.error(f"argument {option}: expected no value")
            values = self._off
        setattr(namespace, self.dest, values)


@dataclass(frozen=True)
class Option:
    """How a setting is given on a command line.

    Attributes:
        help: what it is for.
        kind: its values.
        default: what holds where it is not given, in words; the field's default where None, nothing where "".
        group: the title under which help lists it; the parser's own list where "".
        flags: its names, where they are not `--<field>`.
        metavar: what stands for its value in help.
    """

    help: str
    kind: Kind
    default: str | None = None
    group: str = ""
    flags: tuple[str, ...] = ()
    metavar: str | None = None

    def in_words(self, default: Any) -> str:
        """The help with the default."""
        words = self.default
        if words is None:
            known = {None: "", True: "yes", False: "" if self.kind is SWITCH else "no"}
            words = f"{default:g}" if _is_number(default) else known.get(default, _listed(default))
        return (f"{self.help} (default: {words})" if words else self.help).replace("%", "%%")


def option(help: str, kind: Kind, *, default: Any = MISSING, words: str | None = None, **more: Any) -> Any:
    """A dataclass's field that is an option.

    Args:
        help: see :class:`Option`.
        kind: see :class:`Option`.
        default: the field's.
        words: see :attr:`Option.default`.
        more: what else of :class:`Option`; what it does not have goes into the field's metadata.
    """
    own = {name: more.pop(name) for name in ("group", "flags", "metavar") if name in more}
    return field(default=default, metadata={"option": Option(help, kind, words, **own), **more})


# Of a file or folder that is None, and of a switch that is off, where it is not given.
place = partial(option, kind=PLACE, default=None)
switch = partial(option, kind=SWITCH, default=False)


def options_of(settings: type) -> dict[str, Field]:
    """The fields of a settings class that are options, by name."""
    return {one.name: one for one in fields(settings) if "option" in one.metadata}


def add_options(
    parser: argparse.ArgumentParser,
    settings: type,
    names: Iterable[str] | None = None,
    groups: Mapping[str, str] | None = None,
    words: Callable[[str], str | None] = lambda name: None,
) -> None:
    """Adds the options of a settings class; each is None where it is not given.

    Args:
        parser: gets them.
        settings: a dataclass with fields of :func:`option`.
        names: which of its options; all where None.
        groups: title -> what is said of a group.
        words: a setting's name -> its default in words, None where the field itself tells it.
    """
    places = {group.title: group for group in parser._action_groups}
    known = options_of(settings)
    for name in known if names is None else names:
        own: Option = known[name].metadata["option"]
        if own.group and own.group not in places:
            places[own.group] = parser.add_argument_group(own.group, (groups or {}).get(own.group))
        told = words(name)
        if told is not None:
            own = replace(own, default=told)
        arguments = {"dest": name, "help": own.in_words(known[name].default), **own.kind.arguments()}
        if own.metavar:
            arguments["metavar"] = own.metavar
        flags = own.flags or (f"--{name}",)
        if isinstance(own.kind, Choice) and own.kind.off:
            flags = (*flags, f"--no-{name}")
        (places[own.group] if own.group else parser).add_argument(*flags, **arguments)


def given(settings: type, namespace: argparse.Namespace | Mapping[str, Any]) -> dict[str, Any]:
    """The part of a parsed command line that sets fields of a settings class and was given."""
    values = namespace if isinstance(namespace, Mapping) else vars(namespace)
    names = {one.name for one in fields(settings)}
    return {name: value for name, value in values.items() if name in names and value is not None}


def settle(settings: T, changes: Mapping[str, Any]) -> T:
    """The settings under `changes`; what is None there stays as it is.

    Raises:
        TypeError: a change is no setting.
    """
    return replace(settings, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[type-var]


def check(settings: type, values: Mapping[str, Any]) -> None:
    """Holds values to the ranges of their options, as a command line would.

    Args:
        settings: the class whose options they are; what is no option of it is passed over.
        values: by name; None is left to its default.

    Raises:
        UsageError: one of them is out of range; names its option and the range.
    """
    for name, one in options_of(settings).items():
        if values.get(name) is not None:
            try:
                one.metadata["option"].kind.check(values[name])
            except ValueError as error:
                flag = next(iter(one.metadata["option"].flags), f"--{name}")
                raise UsageError(f"argument {flag}: {error}") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _listed(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _shown(text: str, most: int = 40) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
