"""Protects the first minute on a fresh machine: what is missing is one sentence, and nothing needs a desktop."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import CUB.Model
from tests.commands import ROOT, assert_one_sentence
from utils.evaluation.records import Truth
from utils.evaluation.scoring import Scorer, Unscored
from utils.evaluation.spec import build_spec
from utils.models.taps import Placement
from utils.system.imports import REQUIREMENTS

# Help alone comes without them.
COMMANDS = (("train.py", "--root", "x"), ("CUB/BAS_inference.py", "--checkpoint", "x"), ("-m", "Img", "--help"))
STUBS = {
    "missing": "raise ModuleNotFoundError(\"No module named 'x'\", name=__name__)",
    "broken": "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')",
}


def run(command: tuple[str, ...], **environment: object) -> subprocess.CompletedProcess[str]:
    everything = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    arguments = [sys.executable, *command]
    return subprocess.run(arguments, cwd=ROOT, env=everything, capture_output=True, text=True, timeout=120)


# matplotlib draws at the end; torchvision has a test of its own.
@pytest.mark.parametrize("module", [name for name in REQUIREMENTS if name not in ("matplotlib", "torchvision")])
@pytest.mark.parametrize("kind", STUBS)
def test_a_requirement_that_cannot_be_imported(tmp_path: Path, module: str, kind: str) -> None:
    """One sentence that names the requirement and the command that repairs it, whatever is started."""
    (tmp_path / f"{module}.py").write_text(STUBS[kind])
    for command in COMMANDS if module in ("torch", "cv2") else COMMANDS[:1]:
        result = run(command, PYTHONPATH=tmp_path)
        assert result.returncode == 1, command
        assert_one_sentence(result.stderr, f"{REQUIREMENTS[module]} cannot be imported", "-m pip install -r")


@pytest.mark.parametrize("kind", STUBS)
def test_torchvision_is_missed_where_it_is_used(tmp_path: Path, kind: str) -> None:
    """As above, of what gives the ImageNet weights of most backbones."""
    (tmp_path / "torchvision.py").write_text(STUBS[kind])
    for split in ("train", "test"):
        for name in ("first", "second"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(tmp_path / "data" / split / name / "picture.png")
    command = "train.py", "--arch", "vgg", "--dataset-dir", str(tmp_path / "data"), "--save_path", str(tmp_path / "run")
    result = run(command, PYTHONPATH=tmp_path)
    assert result.returncode == 1
    assert_one_sentence(result.stderr, "torchvision cannot be imported", "-m pip install -r")


def test_processes_that_score_need_no_pytorch(tmp_path: Path) -> None:
    """Protects an evaluation's start and memory: what a process of scores does, from the command's own imports on."""
    spec = build_spec(CUB.Model.recipe("vgg"), contour_grid=(0.5,))
    scorer = Scorer(spec, (Placement((7.5, 7.5), 16.0),), has_masks=False, keeps_maps=True)
    truth = Truth(np.array([[0.0, 0.0, 9.0, 9.0]]), None, True)
    picture = Unscored("x", truth, [np.eye(14, dtype=np.float32)])
    (tmp_path / "scorer.pkl").write_bytes(pickle.dumps((scorer, [picture])))
    program = "import pickle, sys, train, CUB.BAS_inference, utils.evaluation.scoring;" + (
        "scorer, pictures = pickle.load(open(sys.argv[1], 'rb')); print(*scorer(pictures).results[0].boxes[0]);"
        "sys.exit('torch' in sys.modules)"
    )
    result = run(("-c", program, str(tmp_path / "scorer.pkl")))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == [str(side) for side in scorer([picture]).results[0].boxes[0]]


def test_a_network_for_a_file_is_built_of_pytorch_alone() -> None:
    """Protects the start of every evaluation: no second package is imported, and no random number is drawn."""
    program = """
import sys, torch
from utils.models.bas import NothingDrawn
from utils.models.registry import ARCHS
import CUB.Model
before = torch.get_rng_state()
with torch.device("meta"), NothingDrawn():
    models = [CUB.Model.build(arch) for arch in ARCHS]
assert {values.device.type for model in models for values in model.state_dict().values()} == {"meta"}
assert torch.equal(torch.get_rng_state(), before)
print(*sorted({"torchvision", "torch._dynamo"} & sys.modules.keys()))
"""
    result = run(("-c", program))
    assert (result.returncode, result.stdout, result.stderr) == (0, "\n", "")


def test_signals_do_not_reach_processes_that_start(tmp_path: Path) -> None:
    """Protects evaluations from a Ctrl-C while processes import: none is let through to the first one either."""
    (tmp_path / "program.py").write_text(
        """
import signal
from multiprocessing import get_context
from utils.system.signals import no_signals

def tell():
    print([number.name for number in sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))], flush=True)

if __name__ == "__main__":
    for _ in range(2):
        with no_signals():
            process = get_context("spawn").Process(target=tell)
            process.start()
        process.join()
    tell()
"""
    )
    result = run((str(tmp_path / "program.py"),), PYTHONPATH=ROOT)
    assert result.stdout.splitlines() == 2 * ["['SIGINT', 'SIGTERM']"] + ["[]"], result.stderr


def test_other_programs_keep_their_errors(tmp_path: Path) -> None:
    """Protects whoever imports these packages in a program of their own."""
    (tmp_path / "own.py").write_text("import utils\nimport cv2")
    (tmp_path / "cv2.py").write_text(STUBS["broken"])
    result = run((str(tmp_path / "own.py"),), PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert result.returncode == 1 and result.stderr.startswith("Traceback")


def test_no_desktop_is_needed(tmp_path: Path) -> None:
    """Protects bare servers: without libGL and GLib the commands start, as installed from requirements.txt."""
    for name in ("libGL.so.1", "libgthread-2.0.so.0", "libglib-2.0.so.0"):
        (tmp_path / name).write_bytes(b"")  # the loader takes the first of that name, and fails
    result = run(("CUB/BAS_inference.py", "--help"), LD_LIBRARY_PATH=tmp_path)
    try:
        version("opencv-python")
    except PackageNotFoundError:
        assert (result.returncode, result.stderr) == (0, "")
    else:  # it stands in for the requirement, where there is a desktop
        assert_one_sentence(result.stderr, "opencv-python-headless cannot be imported", "uninstall -y opencv-python")
