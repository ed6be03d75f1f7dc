"""Variables of MATLAB files, read by SciPy."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.data.split import read_bytes
from utils.system.errors import UserError, reason_of


def read_matlab(path: Path, names: Sequence[str], hint: str) -> dict[str, np.ndarray]:
    """Reads variables of a file (MATLAB 4 to 7.2), each a list: cells, records of a struct array, or numbers.

    Args:
        path: the file.
        names: of the variables.
        hint: where to get the file, for the messages.

    Returns:
        Name -> (n,) array: of strings, of records with named fields, or of numbers.

    Raises:
        UserError: the file is missing, damaged or lacks a variable, or SciPy is missing.
    """
    content = read_bytes(path, hint)
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UserError(f"{path} is a MATLAB file, which is read by SciPy; `pip install scipy`") from error
    try:
        found = loadmat(io.BytesIO(content), squeeze_me=True, variable_names=list(names))
    except Exception as error:  # of a damaged file, of whatever kind
        raise UserError(f"{path} is no MATLAB file that can be read ({reason_of(error)}); {hint}") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{path} holds no variable {missing[0]}; {hint}")
    return {name: np.atleast_1d(found[name]).ravel() for name in names}
