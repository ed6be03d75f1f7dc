"""A requirement that cannot be imported is told in one sentence, not by a traceback, where a command meets it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

# Import name -> name in requirements.txt.
REQUIREMENTS = {
    "torch": "torch",
    "torchvision": "torchvision",
    "cv2": "opencv-python-headless",
    "numpy": "numpy",
    "PIL": "Pillow",
    "tqdm": "tqdm",
    "matplotlib": "matplotlib",
}
ROOT = Path(__file__).resolve().parents[2]


def tell_failed_imports() -> None:
    """From now on a command of this repository that ends in such an error prints the sentence and exits with 1.

    Other programs that import these packages keep their own errors.
    """
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        name = _requirement_of(error, trace)
        if name is None or not _is_own_command():
            before(kind, error, trace)
            return
        hint = f"{sys.executable} -m pip install -r {ROOT / 'requirements.txt'}"
        if name == "opencv-python-headless" and "lib" in str(error):
            hint = f"{sys.executable} -m pip uninstall -y opencv-python, then {hint}"
        print(f"error: {name} cannot be imported ({' '.join(str(error).split())}); run {hint}", file=sys.stderr)

    sys.excepthook = hook


def _requirement_of(error: BaseException, trace: TracebackType | None) -> str | None:
    """The requirement that was being imported, by the frames that the import passed, innermost first."""
    if not isinstance(error, ImportError | OSError):  # torch's missing libraries are an OSError
        return None
    modules = [error.name] if isinstance(error, ImportError) and error.name else []
    frames = []
    while trace is not None:
        frames.append(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    if isinstance(error, OSError) and "torch" not in frames:
        return None
    for name in (*modules, *reversed(frames)):
        found = REQUIREMENTS.get(name.split(".")[0])
        if found is not None:
            return found
    return None


def _is_own_command() -> bool:
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return path is not None and Path(path).resolve().is_relative_to(ROOT)
