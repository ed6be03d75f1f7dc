"""Whether what a training state's file holds is what a run saves: told before anything is built from it.

What is right by itself can still be another network's; that is told where it is restored, in
:func:`utils.runs.state.restore_training_state`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from torch import Tensor

from utils.models.checkpoint import sound_weights
from utils.models.recipe import Recipe
from utils.runs.settings import Engine

PARTS = ("model", "optimizer", "scheduler", "scaler", "progress", "random", "settings", "engine", "data")
DATA = {"pictures": int, "classes": int, "digest": str}  # of a fingerprint
MOMENTUM, RATES = "momentum_buffer", ("lr", "initial_lr", "momentum", "weight_decay")  # of SGD


def require_sound(content: Mapping[str, Any], progress_type: type) -> None:
    """Checks every part of a training state but the random states, which nothing but their setters understand.

    Args:
        content: what the file held, with all its parts.
        progress_type: :class:`utils.runs.state.Progress`.

    Raises:
        ValueError: a part has another type, a number out of its range, weights or momenta that are not finite; says
            which, in words that follow the file's name.
    """
    for name in PARTS:
        kind = list if name == "random" else dict
        if not isinstance(content[name], kind):
            raise ValueError(f"holds {_shown(content[name])} as {name}, and no {kind.__name__}")
    _require_fields("settings", Recipe, content["settings"])
    _require_fields("engine", Engine, content["engine"])
    _require_progress(content["progress"], progress_type, content["settings"].get("num_classes"))
    for name, wanted in DATA.items():
        if type(content["data"].get(name)) is not wanted:
            raise ValueError(f"holds {_shown(content['data'].get(name))} as {name} in data")
    weights = content["model"]
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()):
        raise ValueError("holds more than tensors in model")
    sound_weights(weights)
    sound_weights(momenta(content["optimizer"]))
    count, epoch = content["scheduler"].get("last_epoch"), content["progress"].get("epoch", 0)
    # Where the rate falls at every step, it counts these.
    if not (_fits(count, int) and count >= epoch if content["settings"].get("poly_steps") else count == epoch):
        raise ValueError(f"holds {_shown(count)} as last_epoch in scheduler")
    wrong = [name for name, value in content["scaler"].items() if not _is_count(value)]
    if wrong:
        raise ValueError(f"holds {_shown(content['scaler'][wrong[0]])} as {wrong[0]} in scaler")


def momenta(optimizer: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every momentum of an optimiser's state, by a name that tells the parameter's number; ValueError if malformed."""
    found = {}
    state, groups = optimizer.get("state"), optimizer.get("param_groups")
    if not (isinstance(state, dict) and isinstance(groups, list) and all(isinstance(group, dict) for group in groups)):
        raise ValueError("holds no state and param_groups in optimizer")
    for number, values in state.items():
        if not (isinstance(values, dict) and values.keys() <= {MOMENTUM}):
            raise ValueError(f"holds {_shown(values)} of parameter {_shown(number)} in optimizer")
        value = values.get(MOMENTUM)
        if not isinstance(value, Tensor | NoneType):
            raise ValueError(f"holds {_shown(value)} as momentum of parameter {_shown(number)} in optimizer")
        if value is not None:
            found[f"the momentum of parameter {number}"] = value
    for group in groups:
        wrong = [name for name in RATES if not _is_count(group.get(name))]
        if wrong:
            raise ValueError(f"holds {_shown(group.get(wrong[0]))} as {wrong[0]} in optimizer")
    return found


def _require_progress(progress: Mapping[str, Any], kind: type, num_classes: int | None) -> None:
    _require_fields("progress", kind, progress)
    unknown = progress.keys() - get_type_hints(kind).keys()
    if unknown:
        raise ValueError(f"holds {_shown(min(unknown, key=str))} in progress")
    whole = kind(**progress)
    if whole.extremes and [len(row) for row in whole.extremes] != [2] * (num_classes or 0):
        raise ValueError("holds extremes that are no pair for each class in progress")
    if bool(whole.step) != bool(whole.seen) or bool(whole.step) != ("accuracy" in whole.sums):
        raise ValueError(f"holds {whole.step} steps over {whole.seen} pictures in progress")


def _require_fields(part: str, kind: type, values: Mapping[str, Any]) -> None:
    """ValueError if one of the values is of another type than the dataclass's field of its name, or negative."""
    for name, hint in get_type_hints(kind).items():
        if name in values and not _fits(values[name], hint):
            raise ValueError(f"holds {_shown(values[name])} as {name} in {part}")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return any(_fits(value, one) for one in arguments)
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(k, arguments[0]) and _is_number(v) for k, v in value.items())
    if origin is list:  # of lists of numbers, infinite where there is nothing yet
        rows = isinstance(value, list) and all(isinstance(row, list) for row in value)
        return rows and all(type(one) is float and not math.isnan(one) for row in value for one in row)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, arguments[0]) for one in value)
    if hint is float:
        return _is_count(value)
    if hint is int:
        return type(value) is int and 0 <= value < 2**63
    return isinstance(value, hint)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # NaN is not


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _shown(value: Any, most: int = 60) -> str:
    text = repr(value) if isinstance(value, str | int | float | NoneType) else f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}..."
