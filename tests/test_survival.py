"""Protects days of training: killed, stopped, out of disk or damaged, a run goes on and ends with the same bits.

All of it is done to real processes of the command, on tiny pictures.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.commands import ROOT, WHOLE, assert_one_sentence, make_cub
from tests.processes import free_port
from utils.runs.state_folder import INDEX

EPOCHS, STEPS = 2, 6
OPTIONS = ["--arch", "mobilenet", "--device", "cpu", "--batch_size", "4", "--resize_size", "64", "--crop_size", "48"]
OPTIONS += ["--epochs", str(EPOCHS), "--show_step", "1", "--save_every_steps", "2"]
# The published heads hold six sevenths of the network's weights; what is done to a run does not depend on them.
OPTIONS += ["--plain_heads", "--no-final_relu"]
TIMES = {"seconds", "images_per_second", "data_wait", "memory_mib"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """24 training pictures and nothing to evaluate; the states are large, so they go when the tests are done."""
    home = tmp_path_factory.mktemp("survival")
    make_cub(home / "data", [(index % 3, True, WHOLE) for index in range(4 * STEPS)], 3)
    yield home
    shutil.rmtree(home)


def start(home: Path, name: str, *more: object, launcher: tuple[str, ...] = (), **popen: object) -> subprocess.Popen:
    arguments = [*launcher, "train.py", *OPTIONS, "--root", home / "data", "--save_path", home / name, *more]
    if "--num_workers" not in more:
        arguments += ["--num_workers", 1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, **streams, **popen)


def run(home: Path, name: str, *more: object, **options: object) -> subprocess.CompletedProcess[str]:
    process = start(home, name, *more, **options)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_for(process: subprocess.Popen, sight: object) -> None:
    """Waits until `sight()` is true; fails if the process ends before."""
    while not sight():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def wait_for_training(process: subprocess.Popen, home: Path, name: str) -> None:
    """Until a signal ends the run after its step, and no longer at once, as while it starts."""
    wait_for(process, (home / name / "mobilenet" / "settings.json").exists)
    time.sleep(0.1)  # what is left of the start takes a hundredth of that, a step several times as long


def states(home: Path, name: str) -> list[Path]:
    return sorted((home / name / "mobilenet" / "states").glob("epoch_*"))


def ending(home: Path, name: str) -> tuple[dict, dict, list[dict]]:
    """Final weights, final momenta, log but for the times."""
    folder = home / name / "mobilenet"
    weights = torch.load(folder / f"mobilenet{EPOCHS - 1}.pth.tar", weights_only=True)
    state = torch.load(states(home, name)[-1], weights_only=True)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    momenta = {key: value["momentum_buffer"] for key, value in state["optimizer"]["state"].items()}
    return weights, momenta, [{key: value for key, value in one.items() if key not in TIMES} for one in log]


def assert_same_ending(home: Path, name: str, other: str) -> None:
    for ours, theirs in zip(ending(home, name)[:2], ending(home, other)[:2], strict=True):
        assert ours.keys() == theirs.keys()
        assert [key for key, value in ours.items() if not torch.equal(value, theirs[key])] == []
    assert ending(home, name)[2] == ending(home, other)[2]


@pytest.fixture(scope="module")
def whole(home) -> str:
    """The run that nothing disturbs."""
    result = run(home, "whole")
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    assert [path.name for path in states(home, "whole")] == ["epoch_0001_step_00000004.pth.tar", "epoch_0002.pth.tar"]
    return "whole"


def test_killed_at_random_moments(home, whole) -> None:
    """SIGKILL again and again, in a step or while saving, with a damaged newest state between: the same bits."""
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    damaged = False
    for number in range(3):
        process = start(home, "killed", "--resume", "auto")
        before = states(home, "killed")
        wait_for(process, lambda before=before: states(home, "killed") != before)
        time.sleep(chance.uniform(0, 1.5))
        process.kill()
        out, err = process.communicate()
        # A worker that was handing over a batch may tell that nobody is there any more.
        assert "Traceback" not in err or "resource_sharer" in err, (seed, number, err)
        if number and not damaged and len(states(home, "killed")) > 1:
            newest = states(home, "killed")[-1]
            newest.write_bytes(newest.read_bytes()[:-1] + b"?")
            damaged = True
        if (home / "killed" / "mobilenet" / f"mobilenet{EPOCHS - 1}.pth.tar").exists():
            break
    # Other numbers of workers: what a picture looks like does not depend on who reads it.
    result = run(home, "killed", "--resume", "auto", "--num_workers", 2)
    assert (result.returncode, result.stderr) == (0, ""), (seed, result.stderr)
    assert "resumed from" in result.stdout
    assert_same_ending(home, "killed", whole)
    settings = json.loads((home / "killed" / "mobilenet" / "settings.json").read_text())
    assert len(settings["starts"]) >= 2 and "--resume auto" in settings["starts"][-1]["command"]


def test_damaged_state_is_said_and_the_one_before_taken(home, whole) -> None:
    """A newest state of the wrong length: named, passed over, and the run ends as it would have."""
    shutil.copytree(home / whole, home / "damaged")
    newest, before = reversed(states(home, "damaged"))
    newest.write_bytes(newest.read_bytes()[:1000])
    result = run(home, "damaged", "--resume", "--num_workers", 0)
    assert result.returncode == 0, result.stderr
    assert f"{newest} is damaged (it is cut short, " in result.stdout
    assert f"resumed from {before} after 1 epochs and 4 steps" in result.stdout
    assert_same_ending(home, "damaged", whole)


@pytest.mark.parametrize(
    ("text", "resume"),  # other texts, read in this process: test_state_folder.py
    [(text, ()) for text in (None, "[]", "{}", "{")] + [(text, ("--resume", "auto")) for text in (None, "{")],
)
def test_lost_index_loses_no_state(home, whole, text: str | None, resume: tuple[str, ...]) -> None:
    """An index that is gone, empty or damaged: without --resume refused, with it the run goes on from its states."""
    name = f"index{''.join(map(hex, (text or '').encode()))}{len(resume)}"
    shutil.copytree(home / whole, home / name)
    index = home / name / "mobilenet" / "states" / INDEX
    states(home, name)[-1].unlink()
    (home / name / "mobilenet" / f"mobilenet{EPOCHS - 1}.pth.tar").unlink()
    kept = states(home, name)
    index.unlink() if text is None else index.write_text(text)
    result = run(home, name, *resume, "--num_workers", 0)
    assert set(kept) <= set(states(home, name))
    if resume:
        assert result.returncode == 0 and f"resumed from {kept[-1]}" in result.stdout
        assert_same_ending(home, name, whole)
    else:
        assert result.returncode == 2
        assert_one_sentence(result.stderr, str(kept[-1]), "is there already; go on with --resume")
    shutil.rmtree(home / name)


def test_two_starts_in_one_folder(home, whole) -> None:
    """The second one is told; the first one ends as it would have."""
    process = start(home, "twice")
    folder = home / "twice" / "mobilenet"
    wait_for(process, (folder / "settings.json").exists)
    process.send_signal(signal.SIGSTOP)  # it might end before the second one has begun
    result = run(home, "twice", "--resume", "auto")
    process.send_signal(signal.SIGCONT)
    assert result.returncode == 1
    assert_one_sentence(result.stderr, f"a run is under way in {folder} (process {process.pid} on ")
    assert process.communicate(timeout=300)[1] == "" and process.returncode == 0
    assert_same_ending(home, "twice", whole)
    (folder / f"mobilenet{EPOCHS - 1}.pth.tar").unlink()
    for path in (folder / "states").iterdir():
        path.unlink()


def test_a_finished_run_is_not_overwritten_by_a_shorter_one(home, whole) -> None:
    """Its weights have another name, and its states were deleted to save space: settings and log still are its own."""
    shutil.copytree(home / whole, home / "finished")
    shutil.rmtree(home / "finished" / "mobilenet" / "states")
    result = run(home, "finished", "--epochs", 1)
    assert result.returncode == 2
    assert_one_sentence(result.stderr, f"mobilenet{EPOCHS - 1}.pth.tar is there already")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_and_resumed(home, whole, number: signal.Signals) -> None:
    """A signal to the whole group, as schedulers and terminals send it: the step ends, all is saved, exit code 75."""
    name = f"stopped_{number.name}"
    process = start(home, name, "--save_every_steps", 0, start_new_session=True)
    process.stdout.readline()
    wait_for_training(process, home, name)
    time.sleep(random.uniform(0, 0.3))
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, (out, err)
    told, sentence = err.strip().split("\n")
    assert told.startswith(f"{number.name}: finishing the step") and "Ctrl-C again" in told
    *_, saved = states(home, name)
    assert sentence.startswith(f"error: stopped by {number.name}; ") and f"saved in {saved}; go on with" in sentence
    result = run(home, name, "--resume")
    assert result.returncode == 0 and f"resumed from {saved}" in result.stdout
    assert_same_ending(home, name, whole)


def test_second_ctrl_c_ends_at_once() -> None:
    """A person who means it: the first Ctrl-C is told, the second ends the process with 130, whatever it is doing."""
    code = "import time\nfrom utils.training.interruption import Interruption\n"
    code += "with Interruption():\n    print(flush=True)\n    while True: time.sleep(0.01)"
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n" and "SIGINT: finishing the step" in process.stderr.readline()
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "") and process.returncode == 130


@pytest.mark.parametrize("moment", ["in the first step", "after an epoch's line"])
def test_interrupted_while_nobody_listens(home, whole, moment: str) -> None:
    """`train.py |& tee log` and Ctrl-C, which ends tee first: saved all the same, exit code 75."""
    name = "deaf" + moment[:2]
    process = start(home, name, "--save_every_steps", 0)
    folder = home / name / "mobilenet"
    wait_for_training(process, home, name)
    process.stdout.close()
    process.stderr.close()
    if moment != "in the first step":
        wait_for(process, lambda: (folder / "log.jsonl").exists() and states(home, name))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 75 and states(home, name)


def test_training_goes_on_when_nobody_listens(home, whole) -> None:
    """A closed terminal or an ended `tee` alone: the run ends as it would have."""
    process = start(home, "unheard")
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=300) == 0
    assert_same_ending(home, "unheard", whole)


def test_full_disk_while_saving(home, whole) -> None:
    """A state that cannot be written: one sentence that names it, exit code 1, and the older states as they were."""
    shutil.copytree(home / whole, home / "full")
    first, last = states(home, "full")
    last.unlink()
    before = (first.read_bytes(), (home / "full" / "mobilenet" / "states" / INDEX).read_bytes())

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    result = run(home, "full", "--resume", preexec_fn=limit)
    assert result.returncode == 1
    assert_one_sentence(result.stderr, str(last), "free some space")
    assert (first.read_bytes(), (home / "full" / "mobilenet" / "states" / INDEX).read_bytes()) == before
    assert {path.name for path in first.parent.iterdir()} == {first.name, INDEX}
    result = run(home, "full", "--resume")
    assert result.returncode == 0
    assert_same_ending(home, "full", whole)


def test_torchrun_restarts_and_goes_on(home) -> None:
    """One of two processes is killed: torchrun's agent starts both again, they resume by themselves, same bits."""

    def launcher() -> tuple[str, ...]:
        options = ("--nproc_per_node=2", "--max_restarts=1", "--master_addr=127.0.0.1")
        return ("-m", "torch.distributed.run", *options, f"--master_port={free_port()}")

    result = run(home, "two", launcher=launcher())
    assert result.returncode == 0, result.stderr
    process = start(home, "two_killed", launcher=launcher())
    wait_for(process, lambda: states(home, "two_killed"))
    workers = [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    os.kill(workers[-1], signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "resumed from" in out and re.search(r"lost the other 1|Signal 9|SIGKILL", err)
    assert_same_ending(home, "two_killed", "two")
