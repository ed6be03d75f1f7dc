"""Protects what the model is fed: crops, seeds, batches, and that one bad picture is said in one sentence."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DistributedSampler
from torch.utils.data._utils.pin_memory import pin_memory
from torchvision import transforms

from tests.test_images import save_picture, save_rotated
from tests.test_masks import save_mask
from utils.data import datasets
from utils.data.datasets import (
    Draw,
    EpochBatches,
    EvaluationBatch,
    EvaluationImages,
    LooseImages,
    TrainingBatch,
    TrainingImages,
    build_evaluation_loader,
    build_loose_loader,
    build_training_loader,
)
from utils.data.images import ImageError, read_image
from utils.data.masks import MaskFiles, read_mask
from utils.data.split import Split
from utils.data.transforms import (
    CENTRE_CROP,
    IMAGENET_MEAN,
    IMAGENET_STD,
    TrainingTransform,
    centre_crop,
    denormalize,
    evaluation_transform,
    ten_crop,
)
from utils.errors import UsageError, UserError

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]


def make_split(folder, count=5, **changes):
    """A split of `count` noise pictures of different sizes; labels 0, 1, 2, 0, ..."""
    random = np.random.RandomState(0)
    paths = []
    for index in range(count):
        pixels = random.randint(0, 256, (30 + index, 40 + 2 * index, 3), dtype=np.uint8)
        paths.append(folder / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    fields = {
        "name": "train",
        "layout": "a test",
        "ids": tuple(str(path.name) for path in paths),
        "paths": tuple(paths),
        "labels": np.arange(count, dtype=np.int64) % 3,
        "boxes": {},
        "class_names": ("a", "b", "c"),
        "masks": {},
    }
    return Split(**(fields | changes))


def spoil(split, index):
    """Cuts a picture of the split short."""
    content = split.paths[index].read_bytes()
    split.paths[index].write_bytes(content[: len(content) // 2])
    return str(split.paths[index])


# --- transforms


def test_evaluation_crops_equal_the_crops_of_pictures(tmp_path):
    """Cropping the normalised tensor is the same as cropping the PIL picture first, for all ten crops in order."""
    pictures = [Image.open(path) for path in make_split(tmp_path, 2).paths]
    images = torch.stack([evaluation_transform(32)(picture) for picture in pictures])
    assert images.shape == (2, 3, 32, 32)
    finish = transforms.Compose([transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    expected = []
    for picture in pictures:
        resized = picture.resize((32, 32), Image.Resampling.BILINEAR)
        corners = [(0, 0), (8, 0), (0, 8), (8, 8), (4, 4)]
        crops = [resized.crop((x, y, x + 24, y + 24)) for x, y in corners]
        mirrored = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        crops += [mirrored.crop((x, y, x + 24, y + 24)) for x, y in corners]
        expected.append(torch.stack([finish(crop) for crop in crops]))
    crops = ten_crop(images, 24)
    assert crops.shape == (2, 10, 3, 24, 24)
    assert torch.equal(crops, torch.stack(expected))
    assert torch.equal(crops[:, CENTRE_CROP], centre_crop(images, 24))


def test_training_transform_crops_at_random_from_the_resized_picture(tmp_path):
    """Each result is one of the possible crops of the picture resized without regard to its aspect, or its mirror."""
    picture = Image.open(make_split(tmp_path, 1).paths[0])
    whole = evaluation_transform(10)(picture)
    transform = TrainingTransform(10, 8)
    candidates = {}
    for flip in (False, True):
        for y in range(3):
            for x in range(3):
                crop = whole[:, y : y + 8, x : x + 8]
                candidates[(flip, y, x)] = crop.flip(-1) if flip else crop
    generator = np.random.default_rng(0)
    seen = dict.fromkeys(candidates, 0)
    for _ in range(900):
        result = transform(picture, generator)
        matches = [key for key, crop in candidates.items() if torch.allclose(result, crop, atol=1e-6)]
        assert len(matches) == 1
        seen[matches[0]] += 1
    # 50 of each are expected; the standard deviation is 7.
    assert all(20 <= count <= 80 for count in seen.values()), seen


@pytest.mark.parametrize(
    "call",
    [
        lambda: TrainingTransform(224, 256),
        lambda: TrainingTransform(10, 0),
        lambda: evaluation_transform(0),
        lambda: ten_crop(torch.zeros(1, 3, 8, 8), 9),
        lambda: centre_crop(torch.zeros(1, 3, 8, 8), 9),
    ],
)
def test_impossible_sizes_name_the_options(call):
    """A crop larger than the picture is refused, where torchvision would pad or fail with a traceback."""
    with pytest.raises(UsageError, match="--crop_size and --resize_size"):
        call()


def test_denormalize_restores_the_pixels(tmp_path):
    """Figures show the picture itself, single or in a batch."""
    picture = Image.open(make_split(tmp_path, 1).paths[0]).resize((20, 20), Image.Resampling.BILINEAR)
    image = evaluation_transform(20)(picture)
    assert (denormalize(image) == np.asarray(picture)).all()
    assert denormalize(image[None]).shape == (1, 20, 20, 3) and denormalize(image).dtype == np.uint8


# --- training


def test_training_images_pair_pictures_with_their_labels(tmp_path):
    """Each picture comes with its own label and its place in the split, found by its pixels."""
    split = make_split(tmp_path)
    images = TrainingImages(split, lambda picture, _: evaluation_transform(16)(picture), seed=0)
    assert len(images) == 5
    for index in range(5):
        item = images[Draw(index, epoch=3)]
        assert torch.equal(item.image, evaluation_transform(16)(Image.open(split.paths[index])))
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
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = ((images * std + mean) * 255).round().long()
    red, green, blue = pixels.unbind(1)
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
        monkeypatch.setattr(datasets, "process_count", lambda: processes)
        monkeypatch.setattr(datasets, "rank", lambda: number)
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
from tests.test_datasets import CPU, make_split
from utils.data.datasets import build_training_loader
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


# --- evaluation


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_goes_on_without_an_unreadable_picture(tmp_path, workers):
    """Everything stays in order and in its place; the bad picture is zeros, marked and explained."""
    split = make_split(tmp_path)
    good = evaluation_transform(16)(Image.open(split.paths[4]))
    path = spoil(split, 2)
    batches = list(build_evaluation_loader(split, 16, 3, workers, CPU))
    assert [type(batch) for batch in batches] == [EvaluationBatch] * 2
    assert [len(batch.errors) for batch in batches] == [3, 2]
    assert torch.cat([batch.indices for batch in batches]).tolist() == [0, 1, 2, 3, 4]
    assert torch.cat([batch.labels for batch in batches]).tolist() == split.labels.tolist()
    assert torch.cat([batch.readable for batch in batches]).tolist() == [True, True, False, True, True]
    assert torch.cat([batch.sizes for batch in batches]).tolist() == [[40, 30], [42, 31], [0, 0], [46, 33], [48, 34]]
    assert torch.equal(batches[1].images[1], good)
    assert batches[0].images[2].count_nonzero() == 0 and batches[0].images[1].count_nonzero() > 0
    assert batches[0].errors[:2] == ("", "") and path in batches[0].errors[2]
    dtypes = {name: getattr(batches[0], name).dtype for name in ("images", "labels", "indices", "sizes", "readable")}
    assert list(dtypes.values()) == [torch.float32, torch.int64, torch.int64, torch.int64, torch.bool]


def test_evaluation_batch_survives_pinning(tmp_path, monkeypatch):
    """CUDA's pinning thread rebuilds the batch; its fields must stay where they are."""
    batch = next(iter(build_evaluation_loader(make_split(tmp_path), 16, 5, 0, CPU)))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    pinned = pin_memory(batch)
    assert isinstance(pinned, EvaluationBatch) and list(pinned.errors) == [""] * 5
    assert torch.equal(pinned.images, batch.images) and torch.equal(pinned.sizes, batch.sizes)


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


def test_evaluation_images_take_paths_that_are_not_ascii(tmp_path):
    """Paths are stored as bytes and must come back whole."""
    path = save_picture(tmp_path / "Grünfink ü" / "鳥.png", (7, 5))
    split = make_split(tmp_path, 1, paths=(path,))
    assert EvaluationImages(split, 8)[0][3] == (7, 5)


# --- masks


def make_masked_split(folder):
    """Five pictures: masks good, of another size, none, good but of an unreadable picture, good with ignored pixels."""
    split = make_split(folder)
    random = np.random.RandomState(1)
    sizes = [(30 + index, 40 + 2 * index) for index in range(5)]
    paths = [save_mask(folder / f"m{index}.png", random.rand(*size) < 0.5) for index, size in enumerate(sizes)]
    save_mask(paths[1], random.rand(7, 8) < 0.5)
    ignore = save_mask(folder / "ignore.png", random.rand(*sizes[4]) < 0.5)
    masks = {f"{index}.png": MaskFiles((paths[index],)) for index in (0, 1, 3)}
    spoil(split, 3)
    return replace(split, masks={**masks, "4.png": MaskFiles((paths[4],), ignore)})


@pytest.mark.parametrize("workers", [0, 1])
def test_masks_come_with_their_pictures(tmp_path, workers):
    """Each mask is its picture's; what is missing or unusable is all ignored, and only what is unusable is an error."""
    split = make_masked_split(tmp_path)
    batches = list(build_evaluation_loader(split, 16, 3, workers, CPU, crop_size=12, with_masks=True))
    masks = torch.cat([batch.masks for batch in batches])
    assert masks.shape == (5, 12, 12) and masks.dtype == torch.uint8
    for index, size in ((0, (40, 30)), (4, (48, 34))):
        assert (masks[index].numpy() == read_mask(split.masks[f"{index}.png"], size, 16, 12)).all()
    assert masks[0].unique().tolist() == [0, 1] and masks[4].unique().tolist() == [0, 1, 255]
    assert (masks[1:4] == 255).all()
    errors = [error for batch in batches for error in batch.mask_errors]
    assert [bool(error) for error in errors] == [False, True, False, False, False]
    assert str(tmp_path / "m1.png") in errors[1]
    plain = list(build_evaluation_loader(split, 16, 3, workers, CPU))
    for batch, bare in zip(batches, plain, strict=True):
        assert torch.equal(batch.images, bare.images) and batch.errors == bare.errors
        assert bare.masks is None and set(bare.mask_errors) == {""}


def test_masks_are_of_the_whole_picture_without_a_crop(tmp_path):
    """Where no crop is cut, as in wsolevaluation's protocol, the masks are not cropped either."""
    split = make_masked_split(tmp_path)
    batch = next(iter(build_evaluation_loader(split, 16, 5, 0, CPU, with_masks=True)))
    assert batch.masks.shape == (5, 16, 16)
    assert (batch.masks[0].numpy() == read_mask(split.masks["0.png"], (40, 30), 16, 16)).all()


def test_no_masks_in_the_split_or_an_impossible_crop(tmp_path):
    """Without any mask there is no tensor of them; a crop beyond the picture is refused before any is read."""
    split = make_split(tmp_path)
    batch = next(iter(build_evaluation_loader(split, 16, 5, 0, CPU, crop_size=12, with_masks=True)))
    assert batch.masks is None and batch.mask_errors == ("",) * 5
    with pytest.raises(UsageError, match="--crop_size and --resize_size"):
        build_evaluation_loader(split, 16, 5, 0, CPU, crop_size=17)


def test_each_picture_and_mask_is_read_once(tmp_path, monkeypatch):
    """Decoding is what a small network's evaluation waits for."""
    split = make_masked_split(tmp_path)
    read = {"pictures": [], "masks": []}
    monkeypatch.setattr(datasets, "read_image", lambda *args: (read["pictures"].append(args), read_image(*args))[1])
    monkeypatch.setattr(datasets, "read_mask", lambda *args: (read["masks"].append(args), read_mask(*args))[1])
    list(build_evaluation_loader(split, 16, 2, 0, CPU, crop_size=12, with_masks=True))
    # The unreadable picture's mask would be read for nothing.
    assert (len(read["pictures"]), len(read["masks"])) == (5, 3)


# --- pictures of one's own


@pytest.mark.parametrize("workers", [0, 1])
def test_loose_images_come_as_a_viewer_shows_them(tmp_path, workers):
    """They are turned by their EXIF tag, sized after that, of no class, and an unreadable one stops nothing."""
    paths = [save_rotated(tmp_path / "a.png", 6), tmp_path / "missing.png", save_picture(tmp_path / "b.png", (20, 10))]
    batches = list(build_loose_loader(paths, 16, 2, workers, CPU))
    images = torch.cat([batch.images for batch in batches])
    assert torch.cat([batch.labels for batch in batches]).tolist() == [-1, -1, -1]
    assert torch.cat([batch.indices for batch in batches]).tolist() == [0, 1, 2]
    assert torch.cat([batch.sizes for batch in batches]).tolist() == [[30, 40], [0, 0], [20, 10]]
    assert torch.cat([batch.readable for batch in batches]).tolist() == [True, False, True]
    assert "missing.png" in batches[0].errors[1] and batches[0].masks is None
    assert torch.equal(images[0], evaluation_transform(16)(read_image(paths[0], exif=True)))
    assert not torch.equal(images[0], evaluation_transform(16)(read_image(paths[0])))
    assert len(LooseImages([], 16)) == 0


# --- the split


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ids": (), "paths": (), "labels": np.zeros(0, np.int64)}, "train split is empty.*complete"),
        ({"ids": ("x", "y", "x")}, "names x twice.*keep one"),
        ({"labels": np.array([0, 1, 3])}, "labels from 0 to 3 but 3 classes.*list of classes"),
        ({"labels": np.array([0, -1, 2])}, "labels from -1 to 2"),
        ({"paths": (Path("x"),)}, "3 ids, 1 paths, 3 labels"),
        ({"name": "valid"}, "no split 'valid'; choose one of train, val, test"),
    ],
)
def test_inconsistent_splits_are_refused(tmp_path, changes, words):
    """What would pair images with wrong labels or boxes never gets as far as a loader."""
    with pytest.raises(UserError, match=words):
        make_split(tmp_path, 3, **changes)


def test_split_has_a_length(tmp_path):
    """len(split) is the number of images."""
    assert len(make_split(tmp_path, 3)) == 3
