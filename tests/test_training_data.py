"""Protects what the model is trained on: crops, seeds, batches, workers, and that one bad picture is one sentence."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DistributedSampler

from tests.splits import CPU, make_split, spoil
from utils.data import training
from utils.data.evaluation import build_evaluation_loader
from utils.data.images import ImageError
from utils.data.training import Draw, EpochBatches, TrainingBatch, TrainingImages, build_training_loader
from utils.data.transforms import resize
from utils.system.errors import UsageError, UserError

ROOT = Path(__file__).parents[1]


def test_training_images_pair_pictures_with_their_labels(tmp_path):
    """Each picture comes with its own label and its place in the split, found by its pixels."""
    split = make_split(tmp_path)
    images = TrainingImages(split, lambda picture, _: resize(picture, 16), seed=0)
    assert len(images) == 5
    for index in range(5):
        item = images[Draw(index, epoch=3)]
        assert torch.equal(item.image, resize(Image.open(split.paths[index]), 16))
        assert (item.label, item.index, item.replaced) == (split.labels[index], index, "")


def make_places(folder, count, side):
    """Pictures whose pixels tell their place and picture: red is the column, green the row, blue the number."""
    y, x = np.mgrid[:side, :side]
    split = make_split(folder, count)
    for number, path in enumerate(split.paths):
        pixels = np.stack([x, y, np.full_like(x, number)], axis=2).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    return split


def read_places(images):
    """Of each crop of :func:`make_places` the tuple (picture, left, top, whether mirrored)."""
    red, green, blue = images.long().unbind(1)
    mirrored = red[:, 0, 0] > red[:, 0, -1]
    columns = (blue[:, 0, 0], red.amin((1, 2)), green[:, 0, 0], mirrored)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def epoch_of(loader, epoch, step=0):
    loader.batch_sampler.start_at(epoch, step)
    return list(loader)


def same(ours, theirs):
    pairs = zip(ours, theirs, strict=True)
    return all(torch.equal(a.images, b.images) and torch.equal(a.indices, b.indices) for a, b in pairs)


def test_crops_follow_from_seed_epoch_and_picture(tmp_path):
    """Protects resuming: order is DistributedSampler's, place and mirror are drawn anew for each epoch and picture."""
    split, seed = make_places(tmp_path, 7, 32), 5
    loader = build_training_loader(split, 32, 24, 3, 0, seed, CPU)
    assert [len(batch.labels) for batch in loader] == [3, 3] == [3] * len(loader)
    for epoch in (0, 1, 9):
        order = DistributedSampler(range(7), 1, 0, seed=seed)
        order.set_epoch(epoch)
        expected = []
        for index in list(order)[:6]:
            generator = np.random.default_rng((seed, epoch, index))
            top, left = (int(value) for value in generator.integers(9, size=2))
            expected.append((index, left, top, bool(generator.random() < 0.5)))
        batches = epoch_of(loader, epoch)
        assert {type(batch) for batch in batches} == {TrainingBatch}
        assert [place for batch in batches for place in read_places(batch.images)] == expected
        indices = torch.cat([batch.indices for batch in batches])
        assert indices.tolist() == [index for index, *_ in expected]
        assert torch.equal(torch.cat([batch.labels for batch in batches]), torch.from_numpy(split.labels)[indices])
        assert all(batch.replaced == () and batch.images.shape == (3, 3, 24, 24) for batch in batches)


def test_epochs_and_seeds_differ_and_workers_do_not(tmp_path):
    """Protects what a run is: the same for 0, 1 and 2 workers, whatever was read before; other epochs, other crops."""
    split = make_places(tmp_path, 8, 32)

    def build(workers, seed=6):
        return build_training_loader(split, 32, 24, 3, workers, seed, CPU)

    def places(batches):
        return {place for batch in batches for place in read_places(batch.images)}

    alone = build(0)
    expected = {epoch: epoch_of(alone, epoch) for epoch in (0, 1, 2)}
    assert [len(batch.labels) for batch in expected[0]] == [3, 3, 2]
    for workers in (1, 2):
        loader = build(workers)
        torch.manual_seed(workers)  # nothing depends on it
        for epoch in (2, 0, 1):
            assert same(epoch_of(loader, epoch), expected[epoch])
        assert same(epoch_of(loader, 1, step=2), expected[1][2:])
    for epoch in (0, 1):
        assert not places(expected[epoch]) & places(expected[epoch + 1])
        indices = [torch.cat([batch.indices for batch in expected[number]]).tolist() for number in (epoch, epoch + 1)]
        assert indices[0] != indices[1] and sorted(indices[0]) == sorted(indices[1]) == list(range(8))
    assert not same(epoch_of(build(0, seed=7), 0), expected[0])


@pytest.mark.parametrize("step", range(4))
def test_an_epoch_can_be_entered_at_any_step(tmp_path, step):
    """Protects states within an epoch: the rest is exactly what it would have been, and its length is told."""
    loader = build_training_loader(make_split(tmp_path, 8), 16, 12, 3, 0, 6, CPU)
    whole = epoch_of(loader, 4)
    loader.batch_sampler.start_at(4, step)
    assert len(loader) == 3 - step and loader.batch_sampler.steps == 3
    assert same(list(loader), whole[step:])


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(5, 2, [2, 2]), (5, 3, [3, 2]), (4, 2, [2, 2]), (1, 4, [1]), (2, 1, [1, 1])],
)
def test_only_a_last_batch_of_one_is_left_out(tmp_path, count, batch_size, sizes):
    """Batch normalisation never takes its statistics from a single left-over image; nothing else is dropped."""
    loader = build_training_loader(make_split(tmp_path, count), 8, 8, batch_size, 0, 0, CPU)
    assert [len(batch.labels) for batch in loader] == sizes
    assert len(loader) == loader.batch_sampler.steps == len(sizes)


# Of 14 pictures, the last of 7 in each of two processes would be a batch of one; 13 are filled up to 14.
@pytest.mark.parametrize(("count", "alone_steps", "shared_steps"), [(12, 2, 2), (10, 2, 2), (14, 3, 2), (13, 2, 2)])
def test_processes_share_out_each_batch(monkeypatch, count, alone_steps, shared_steps):
    """Protects the meaning of --batch_size: all processes' n-th batches are the n-th of one, and equally many."""

    def order(number, processes):
        monkeypatch.setattr(training, "process_count", lambda: processes)
        monkeypatch.setattr(training, "rank", lambda: number)
        batches = EpochBatches(count, 6 // processes, seed=3)
        batches.start_at(2)
        return [[draw.index for draw in batch] for batch in batches]

    alone, shares = order(0, 1), [order(number, 2) for number in range(2)]
    assert [len(alone), *map(len, shares)] == [alone_steps, shared_steps, shared_steps]
    for step in range(count // 6):
        assert sorted(shares[0][step] + shares[1][step]) == sorted(alone[step])


def test_workers_stay_from_epoch_to_epoch(tmp_path):
    """Protects against starting processes anew each epoch, which for large data sets takes longer than to read them."""
    loader = build_training_loader(make_split(tmp_path, 8), 16, 12, 4, 1, 0, CPU)
    pids = []
    for epoch in range(2):
        epoch_of(loader, epoch)
        pids.append([worker.pid for worker in loader._iterator._workers])
    assert pids[0] == pids[1] and len(pids[0]) == 1 and pids[0][0] != os.getpid()


def test_workers_end_with_their_loader(tmp_path):
    """Protects exits: also of a loader that goes as part of a cycle, as an error's traceback makes one."""
    loader = build_training_loader(make_split(tmp_path, 8), 16, 12, 4, 1, 0, CPU)
    next(iter(loader))
    (worker,) = loader._iterator._workers
    loader.itself = loader
    assert worker.is_alive()
    del loader
    gc.collect()
    worker.join(timeout=10)
    assert not worker.is_alive()


def test_workers_end_with_their_process(tmp_path):
    """Protects exits: workers ignore SIGTERM, and a process that leaves in the middle of an epoch must not wait."""
    make_split(tmp_path, 24)
    code = f"""
import torch
from pathlib import Path
from tests.splits import CPU, make_split
from utils.data.training import build_training_loader
loader = build_training_loader(make_split(Path({str(tmp_path)!r}), 24), 16, 12, 2, 1, 0, CPU)
batches = iter(loader)
for _ in range(3):
    next(batches)
print(*(worker.pid for worker in loader._iterator._workers), flush=True)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # Without an end of the workers this would hang, and the time run out.
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90
    )
    assert (result.returncode, result.stderr) == (0, "")
    with pytest.raises(ProcessLookupError):
        os.kill(int(result.stdout), 0)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_picture_ends_training_in_one_sentence(tmp_path, workers):
    """The error crosses worker processes without their traceback."""
    split = make_split(tmp_path)
    path = spoil(split, 3)
    with pytest.raises(ImageError) as caught:
        list(build_training_loader(split, 8, 8, 2, workers, 0, CPU))
    message = str(caught.value)
    assert path in message and "replace it" in message
    assert "\n" not in message and "Traceback" not in message


@pytest.mark.parametrize("workers", [0, 1])
def test_next_readable_picture_takes_the_place_of_a_bad_one(tmp_path, workers):
    """Protects --skip_bad_images: order and all other crops stay; the picture that stepped in keeps its own label."""
    split = make_places(tmp_path, 7, 32)

    def epochs(**options):
        loader = build_training_loader(split, 32, 24, 7, workers, 6, CPU, **options)
        return [epoch_of(loader, epoch)[0] for epoch in range(2)]

    intact = epochs()
    bad = [spoil(split, 3), spoil(split, 4), spoil(split, 6)]
    takes_place = {3: 5, 4: 5, 6: 0}  # after the last comes the first
    for before, after in zip(intact, epochs(skip_bad=True), strict=True):
        expected = [takes_place.get(index, index) for index in before.indices.tolist()]
        assert after.indices.tolist() == expected and after.labels.tolist() == split.labels[expected].tolist()
        for was, now, index in zip(read_places(before.images), read_places(after.images), expected, strict=True):
            assert now == (index, *was[1:])
        assert len(after.replaced) == 3 and all("\n" not in sentence for sentence in after.replaced)
        for path, other in zip(bad, (5, 5, 0), strict=True):
            (sentence,) = [sentence for sentence in after.replaced if f"cannot read the picture {path}" in sentence]
            assert sentence.endswith(f"(until then {split.paths[other]} takes its place)")


def test_no_picture_can_be_read(tmp_path):
    """Protects --skip_bad_images against a folder of nothing but damage: one sentence, no endless search."""
    split = make_split(tmp_path, 3)
    paths = [spoil(split, index) for index in range(3)]
    with pytest.raises(ImageError, match="no picture of the split can be read; the first: ") as caught:
        list(build_training_loader(split, 8, 8, 3, 0, 0, CPU, skip_bad=True))
    assert any(path in str(caught.value) for path in paths) and "\n" not in str(caught.value)


class _Crash:
    def __call__(self, picture, generator):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_sentence(tmp_path):
    """A worker that the system kills for memory says what to lower."""
    loader = build_training_loader(make_split(tmp_path), 8, 8, 2, 1, 0, CPU)
    loader.dataset._transform = _Crash()
    with pytest.raises(UserError, match="lower --num_workers or --batch_size"):
        list(loader)


def test_loaders_pin_for_cuda_only(tmp_path):
    """Pinned memory speeds up copies to a GPU and does nothing elsewhere."""
    split = make_split(tmp_path)
    for device, pinned in (("cuda", True), ("cpu", False), ("mps", False)):
        assert build_training_loader(split, 8, 8, 2, 0, 0, torch.device(device)).pin_memory is pinned
        assert build_evaluation_loader(split, 8, 2, 0, torch.device(device)).pin_memory is pinned


def test_impossible_counts_name_the_options(tmp_path):
    """A batch of none or a negative number of workers is wrong usage, not a traceback."""
    split = make_split(tmp_path)
    with pytest.raises(UsageError, match="--batch_size is 0"):
        build_training_loader(split, 8, 8, 0, 0, 0, CPU)
    with pytest.raises(UsageError, match="--num_workers is -1"):
        build_evaluation_loader(split, 8, 2, -1, CPU)


def test_workers_end_where_a_pass_is_broken_off(tmp_path):
    """Protects notebooks: a loader that is looked into again and again keeps no processes."""
    split = make_split(tmp_path, 8)
    loader = build_evaluation_loader(split, 16, 2, 2, CPU)
    before = multiprocessing.active_children()
    for _ in range(3):
        next(iter(loader))
    assert set(multiprocessing.active_children()) <= set(before)
