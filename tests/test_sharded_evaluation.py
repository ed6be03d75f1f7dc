"""Evaluation by two and three real processes against one: the same records, bit for bit, in every process."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

from tests.commands import NOISE, ROOT, assert_one_sentence, make_cub, read_json, run_inference, shell, write_random_net
from tests.processes import free_port, run_processes
from tests.test_amc import TinyBAS
from tests.test_evaluation import CPU, ask, save_picture
from utils.data.masks import MaskFiles
from utils.data.split import Split, take
from utils.evaluation.kinds import KINDS, MapKind
from utils.evaluation.protocols import PROTOCOLS
from utils.evaluation.run import build_loader, evaluate
from utils.evaluation.selection import choose_thresholds
from utils.evaluation.sharding import count_rounds, own_pictures
from utils.evaluation.spec import EvaluationSpec, threshold_grid
from utils.results.report.records import read_records
from utils.system.processes import process_count, process_group, rank

PICTURES = 11
UNREADABLE = (2, 10)


class PartlyBroken(TinyBAS):
    """Gives no finite class scores for the first picture of a batch of three or more, no finite map for the last."""

    def encode_crops(self, crops, map_crop):
        encoding = super().encode_crops(crops, map_crop)
        if len(crops) > 2:
            encoding.logits[0] = float("nan")
            encoding.features[-1] = float("nan")
        return encoding


class Case(NamedTuple):
    """One call of `evaluate`."""

    count: int
    batch_size: int
    spec: EvaluationSpec
    broken: bool = False


ALL = replace(
    ask(KINDS, grid=threshold_grid(0.1), contour_grid=threshold_grid(0.05), with_masks=True),
    swept={MapKind("bas", k): 0.4 for k in (1, 3, 5)},
    swept_grid=(0.0, 0.9),
)
CASES = {
    "three batches, the last one smaller": Case(PICTURES, 4, ask()),
    "everything is asked": Case(PICTURES, 3, ALL),
    "contours": Case(PICTURES, 2, replace(ALL, protocol=PROTOCOLS["wsolevaluation"], ten_crops=False)),
    "outputs that are not finite": Case(PICTURES, 4, ALL, broken=True),
    "one batch: the others have nothing to do": Case(PICTURES, 16, ALL),
    "two batches": Case(6, 3, ask(with_masks=True)),
    "batches of one": Case(5, 1, ask()),
}


def make_split(folder: Path) -> Split:
    """Eleven pictures, two unreadable; boxes but for one, masks for some, of which one is unusable."""
    rng = np.random.default_rng(1)
    ids, boxes, masks = [f"{index}.png" for index in range(PICTURES)], {}, {}
    for index, name in enumerate(ids):
        size = (70 + 3 * index, 80 - 2 * index)
        save_picture(folder / name, index, size)
        if index != 4:
            boxes[name] = np.sort(rng.uniform(0, 1, (1 + index % 2, 2, 2)) * size, axis=1).reshape(-1, 4)
        if index % 3:
            mask = np.zeros(size[::-1], np.uint8)
            mask[10:50, 20 : 40 + index] = 255
            Image.fromarray(mask if index != 7 else mask[:5, :5]).save(folder / f"mask_{index}.png")
            masks[name] = MaskFiles((folder / f"mask_{index}.png",))
    for index in UNREADABLE:
        (folder / ids[index]).write_bytes(b"no picture")
    paths, labels = tuple(folder / name for name in ids), rng.integers(0, 5, PICTURES)
    return Split("test", "made by a test", tuple(ids), paths, labels, boxes, tuple("abcde"), masks)


def plain(value: Any) -> Any:
    """All that an object holds, private attributes too, as values that are equal where they are bit for bit."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.tolist()
    if isinstance(value, np.ndarray | np.generic):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return plain(vars(value)) if hasattr(value, "__dict__") else value


class Answer(NamedTuple):
    """What one process has of one case."""

    evaluation: Any
    observed: list[int]  # positions, as they were observed
    received: Any
    read: list[int]  # positions of the pictures that were read
    gathered: int  # exchanges
    failures: list[str]


def noting(seen: list, target: Any, name: str) -> AbstractContextManager:
    """Notes the first argument of every call of a function, while it lasts."""
    function: Callable = getattr(target, name)

    def note(first: Any, *rest: Any) -> Any:
        seen.append(first)
        return function(first, *rest)

    return patch.object(target, name, note)


def answer(case: Case, split: Split, observes: bool) -> Answer:
    split = take(split, range(case.count))
    torch.manual_seed(5)
    model = (PartlyBroken if case.broken else TinyBAS)(final_relu=False).eval()
    observed, received, read, gathered = [], [], [], []

    def observe(evaluation, observation):
        observed.append(observation.index)
        main = evaluation.maps[evaluation.spec.main]
        return observation._replace(seconds=0.0), main.boxes[observation.index].copy(), main.errors[observation.index]

    with (
        noting(read, sys.modules["utils.data.loader"], "read_image"),
        noting(gathered, sys.modules["utils.evaluation.run"], "gather_everywhere"),
        noting(gathered, sys.modules["utils.evaluation.sharding"], "gather_everywhere"),
    ):
        evaluation = evaluate(
            model,
            build_loader(split, case.spec, case.batch_size, 0, CPU),
            split,
            case.spec,
            CPU,
            observe=observe if observes else None,
            receive=received.append if observes and rank() == 0 else None,
        )
    read = [int(Path(path).stem) for path in read]
    return Answer(plain(evaluation), observed, plain(received), read, len(gathered), evaluation.failures)


def process(number: int, count: int, folder: Path) -> None:
    """One of `count` processes answers everything and leaves its answers in a file; `count` 1 is a process alone."""
    split = pickle.loads((folder / "split").read_bytes())
    with process_group(CPU, timeout=60):
        assert (process_count(), rank()) == (count, number)
        answers = {(name, watched): answer(case, split, watched) for name, case in CASES.items() for watched in (0, 1)}
        torch.manual_seed(5)
        spec = ask(("bas", "cam"), protocol=PROTOCOLS["ijcv"])
        chosen = choose_thresholds(TinyBAS(final_relu=False), split, spec, CPU, 2, 0)
    (folder / f"{number}_of_{count}").write_bytes(pickle.dumps((answers, plain(chosen))))


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[int, list[tuple[dict, Any]]]:
    """Number of processes -> what each of them found."""
    folder = tmp_path_factory.mktemp("sharded")
    (folder / "pictures").mkdir()
    (folder / "split").write_bytes(pickle.dumps(make_split(folder / "pictures")))
    for count in (1, 2, 3):
        run_processes(process, count, folder)
    found = {
        count: [pickle.loads((folder / f"{number}_of_{count}").read_bytes()) for number in range(count)]
        for count in (1, 2, 3)
    }
    shutil.rmtree(folder)
    return found


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_every_process_has_the_records_of_a_single_one(answers, name: str, count: int) -> None:
    """Protects the figures of several processes: every array, count and sentence, whoever scored the picture."""
    ((alone, _),) = answers[1]
    expected = alone[name, 0]
    # What the comparison is worth: there are misses and faults of every kind among the records.
    words = ["2.png"] + ["mask_7.png"] * (name == "everything is asked")
    words += ["output is not finite", "the map of"] * CASES[name].broken
    assert all(any(word in failure for failure in expected.failures) for word in words)
    for number in range(count):
        for watched in (0, 1):
            found = answers[count][number][0][name, watched]
            assert found.failures == expected.failures
            assert found.evaluation == expected.evaluation, (number, watched)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_batches_are_dealt_out_whole(answers, name: str, count: int) -> None:
    """Protects speed and rounding: batch b of a single process goes to process b % count, and nobody else reads it."""
    case = CASES[name]
    for number in range(count):
        found = answers[count][number][0][name, 1]
        own = [index for index in range(case.count) if index // case.batch_size % count == number]
        assert found.observed == found.read == own


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_first_process_receives_all_in_order(answers, name: str, count: int) -> None:
    """Protects the report of --save: each picture's observation reaches the first process, in the split's order."""
    ((alone, _),) = answers[1]
    expected = alone[name, 1]
    assert expected.observed == list(range(CASES[name].count))
    assert len(expected.received) == CASES[name].count
    assert answers[count][0][0][name, 1].received == expected.received
    assert all(found[name, 1].received == [] for found, _ in answers[count][1:])


def test_exchanges_are_few(answers) -> None:
    """Protects speed: one exchange in all where nobody observes, none in a process alone."""
    for name, case in CASES.items():
        for count in (2, 3):
            rounds = -(-case.count // (case.batch_size * count))
            for found, _ in answers[count]:
                assert (found[name, 0].gathered, found[name, 1].gathered) == (1, 1 + rounds)
        ((alone, _),) = answers[1]
        assert alone[name, 0].gathered == alone[name, 1].gathered == 0


def test_thresholds_are_the_same_in_every_process(answers) -> None:
    """Protects --select-on: all processes go on with the thresholds that a single one chooses."""
    ((_, expected),) = answers[1]
    assert set(expected) == {str(MapKind("bas", 2)), str(MapKind("cam"))}
    assert all(chosen == expected for count in (2, 3) for _, chosen in answers[count])


@pytest.mark.parametrize(("pictures", "batch_size"), [(0, 4), (1, 4), (8, 4), (9, 4), (23, 5), (5, 1)])
def test_every_batch_has_one_owner(monkeypatch: pytest.MonkeyPatch, pictures: int, batch_size: int) -> None:
    """Protects against lost and doubled pictures, and against processes that wait for a round that never comes."""
    for count in (1, 2, 3, 7):
        monkeypatch.setattr("utils.evaluation.sharding.process_count", lambda count=count: count)
        parts = []
        for number in range(count):
            monkeypatch.setattr("utils.evaluation.sharding.rank", lambda number=number: number)
            parts.append(own_pictures(pictures, batch_size))
            batches = -(-len(parts[-1]) // batch_size)
            rounds = count_rounds(pictures, batch_size)
            assert batches in (rounds, rounds - 1) and (number > 0 or batches == rounds)
            whole = np.split(parts[-1], range(batch_size, len(parts[-1]), batch_size))
            assert all(batch[0] % batch_size == 0 and (np.diff(batch) == 1).all() for batch in whole if len(batch))
        assert sorted(np.concatenate(parts).tolist()) == list(range(pictures))


# --- the command


def torchrun(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc_per_node=2 arguments`, on a port of its own."""
    options = ["--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    return shell(folder, "-m", "torch.distributed.run", *options, *arguments)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """The command line of a random net on seven pictures of noise, one of which cannot be read."""
    home = tmp_path_factory.mktemp("command")
    make_cub(home / "data", NOISE, 5)
    next(home.glob("data/images/*/8.jpg")).write_bytes(b"no picture")
    checkpoint = write_random_net(home / "mobilenet0.pth.tar", 5)
    options = ["--arch", "mobilenet", "--data", home / "data", "--checkpoint", checkpoint, "--num_workers", 0]
    yield [*options, "--device", "cpu", "--batch_size", 2]
    shutil.rmtree(home)


def test_torchrun_leaves_what_one_process_leaves(options, tmp_path: Path) -> None:
    """Protects `torchrun BAS_inference.py`: JSON, images.csv and thumbnails but for times, said once."""
    more = ["--sweep", "--compare", "bas", "cam", "--select-on", "train", "--vis", 2]
    results = {}
    for name, start in (("alone", shell), ("shared", torchrun)):
        out = tmp_path / name
        files = ["--json", tmp_path / f"{name}.json", "--save", out]
        results[name] = start(ROOT / "CUB", "BAS_inference.py", *options, *more, *files)
        assert results[name].returncode == 0, results[name].stderr
        assert "error" not in results[name].stderr and "Traceback" not in results[name].stderr

    records = {name: read_json(tmp_path / f"{name}.json") for name in results}
    for name, record in records.items():
        assert record.pop("seconds") > 0
        assert read_json(tmp_path / name / "results.json").items() >= record.items()
    assert records["alone"] == records["shared"]
    assert records["alone"]["scores"]["missed"] == 1 and len(records["alone"]["failures"]) == 1

    rows = {name: list(read_records(tmp_path / name / "images.csv")) for name in results}
    assert all(row.seconds > 0 for row in rows["shared"])
    alone, shared = ([replace(row, seconds=0) for row in rows[name]] for name in ("alone", "shared"))
    assert alone == shared and len(shared) == 7 and sum(row.error == "missed" for row in shared) == 1

    pictures = {
        name: {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.[jp][pn]g")}
        for name in results
    }
    assert pictures["alone"] == pictures["shared"] and len(pictures["shared"]) == 6 + 1  # thumbnails, --vis
    files = {name: {path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*")} for name in results}
    assert files["alone"] == files["shared"]

    printed = {
        name: [
            line
            for line in result.stdout.splitlines()
            if not line.startswith(("look at", "figures saved", "7 pictures in"))
        ]
        for name, result in results.items()
    }
    assert printed["alone"] == printed["shared"]


def test_first_process_alone_cannot_go_on(options, tmp_path: Path) -> None:
    """Protects against hanging: a full folder stops the first process with its sentence, and the others with it."""
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "notes.txt").write_text("mine")
    result = torchrun(ROOT / "CUB", "BAS_inference.py", *options, "--save", tmp_path / "report")
    assert result.returncode != 0
    assert f"error: {tmp_path / 'report'} holds files already; name a new folder" in result.stderr
    assert result.stderr.count("Traceback") == 1  # torchrun's own, which says which process ended first
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["notes.txt", "report"]


def test_own_pictures_are_for_one_process(capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Protects --images from being done twice over: refused under several processes, before anything is read."""
    monkeypatch.setattr("utils.system.processes.process_count", lambda: 2)
    assert run_inference("CUB", "--images", tmp_path / "bird.jpg", "--checkpoint", tmp_path / "none") == 2
    assert_one_sentence(capsys.readouterr().err, "--images is for a single process", "not with torchrun")
