"""`python -m utils.segmentation maps`: the maps of a list's pictures, as they come."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from utils.data.dataset import Dataset
from utils.data.images import ImageError, read_image
from utils.data.split import Split
from utils.inference.loading import load
from utils.inference.released import fetch_released
from utils.models.bas import BAS
from utils.models.checkpoint import GENERATOR_KEY, clean_state, differences, load_file
from utils.models.fold import fold_batch_norm
from utils.models.registry import build
from utils.segmentation.arguments import MapSettings
from utils.segmentation.kinds import CAM, TITLES
from utils.segmentation.maps import PictureMaps, make_maps
from utils.segmentation.store import RECORD, save_maps
from utils.system.errors import UsageError, UserError
from utils.system.files import file_digest, read_json, require_writable, write_json
from utils.system.memory import peak_memory_mib
from utils.system.processes import (
    first_on_each_machine,
    gather_everywhere,
    is_main,
    process_count,
    process_group,
    rank,
    wait_for_all,
)
from utils.system.progress import progress_bar

# Of IRN's network for class activation maps, whose layers have several names each in its file.
IRN_TRUNK, IRN_HEAD = "resnet50.", "classifier.weight"
TIMEOUT = 3600.0  # seconds; the processes wait for one another at the end alone


def make_all(dataset: Dataset, settings: MapSettings, device: torch.device) -> None:
    """Makes the maps that are not there yet; the processes of torchrun share the pictures.

    Raises:
        UserError: whatever the user can put right; what was made stays.
    """
    with process_group(device, TIMEOUT):
        split = dataset.load_list(settings.root or dataset.root, settings.of_list)
        print(f"{dataset.name} {settings.of_list}: {len(split)} pictures; {split.layout}")
        require_writable(settings.maps, "--maps")
        networks = _load_networks(dataset, settings, device)
        if is_main():
            _describe(settings, networks)
        wait_for_all()
        begin, own = time.perf_counter(), range(rank(), len(split), process_count())
        todo = [index for index in own if not _is_made(settings, split.ids[index])]
        failures = [
            failure for index in progress_bar(todo, "maps") if (failure := _make(settings, split, index, networks))
        ]
        seconds = time.perf_counter() - begin
        everyones = gather_everywhere((len(todo), failures))
        failures = [failure for _, found in everyones for failure in found]
        made = sum(count for count, _ in everyones) - len(failures)
        memory = peak_memory_mib(device)
        used = "" if memory is None else f", {memory:.0f} MiB at most"
        rate = made / max(seconds, 1e-9)
        print(f"{made} pictures in {seconds:.1f} s, {rate:.2f} a second{used}; maps in {settings.maps}")
    if failures:
        raise MissingMapsError(f"{len(failures)} pictures have no maps; the first: {failures[0]}")


class MissingMapsError(UserError):
    """Pictures that could not be read; what all processes know, one tells."""

    is_shared = True


class _Networks(NamedTuple):
    """What makes the maps."""

    model: BAS  # whose generator, and class maps unless there is another network for them
    cam_model: BAS | None
    device: torch.device
    files: dict[str, Path]  # of their weights, by the option that names them


def _load_networks(dataset: Dataset, settings: MapSettings, device: torch.device) -> _Networks:
    """Only those that are used: the class maps of another network need no checkpoint."""
    files = {}
    cam_model = None
    if settings.cam_weights is not None:
        cam_model, files["cam_weights"] = load_cam_network(dataset, settings.cam_weights, device), settings.cam_weights
        if settings.map == CAM:
            return _Networks(cam_model, cam_model, device, files)
    checkpoint = settings.checkpoint
    if settings.download:
        with first_on_each_machine():
            checkpoint = fetch_released(dataset, settings.arch)
    loaded = load(dataset, settings.arch, checkpoint, device=str(device))
    return _Networks(loaded.model, cam_model, device, {"checkpoint": loaded.checkpoint.path, **files})


def _is_made(settings: MapSettings, image_id: str) -> bool:
    suffixes = (".npz", ".npy") if settings.npy else (".npz",)
    return all((settings.maps / f"{image_id}{suffix}").is_file() for suffix in suffixes)


def _make(settings: MapSettings, split: Split, index: int, networks: _Networks) -> str:
    """Makes and saves the maps of one picture; a sentence where it cannot be read."""
    assert split.positives is not None  # of a data set that segments
    try:
        picture = read_image(split.paths[index])
    except ImageError as error:
        return str(error)
    classes = np.flatnonzero(split.positives[index])
    model, cam_model, device, _ = networks
    made = make_maps(model, picture, classes.tolist(), device, settings.map, cam_model, settings.scales)
    maps = PictureMaps(classes, *(values.cpu().numpy() for values in made))
    if not np.isfinite(maps.high_res).all():
        raise UserError(f"{split.paths[index]}: the network's maps are not finite; take another checkpoint")
    save_maps(settings.maps, split.ids[index], maps, settings.npy)
    return ""


def _describe(settings: MapSettings, networks: _Networks) -> None:
    """Writes what the folder's maps are; UsageError if there are others in it."""
    record: dict[str, Any] = {"map": settings.map, "title": TITLES[settings.map], "scales": list(settings.scales)}
    for name, file in networks.files.items():
        record |= {name: str(file.resolve()), f"{name}_sha256": file_digest(file)}
    path = settings.maps / RECORD
    if path.is_file():
        before = read_json(path, "is no record of maps", "name another --maps folder", dict)
        # Weights are the same wherever they lie, and others where a run has written anew.
        compared = sorted(({*record} | {*before}) - {"checkpoint", "cam_weights", "title"})
        changed = [name for name in compared if before.get(name) != record.get(name)]
        if changed:
            name = changed[0]
            raise UsageError(
                f"{settings.maps} holds maps of {name} {before.get(name)!r}, not {record.get(name)!r}; name another "
                "--maps folder"
            )
    write_json(path, record)


def load_cam_network(dataset: Dataset, path: Path, device: torch.device) -> BAS:
    """IRN's network for class activation maps: ResNet50 at 1/16 and a 1 x 1 convolution, BAS's without the generator.

    Args:
        dataset: whose classes.
        path: a file of IRN's, whose trunk is called `resnet50.*`, or a BAS checkpoint of the same network.
        device: where to.

    Returns:
        The network, folded for inference; its generator is random and not to be used.

    Raises:
        UserError: the file is of another network.
    """
    recipe = dataset.recipe("resnet")
    model = build(recipe)
    try:
        state = dict(clean_state(load_file(path)).state)
    except ValueError as error:
        raise UserError(f"--cam-weights: {path} is no state dict: {error}") from error
    if IRN_HEAD in state:
        trunk = {key.removeprefix(IRN_TRUNK): value for key, value in state.items() if key.startswith(IRN_TRUNK)}
        state = {**trunk, f"{recipe.head_name}.weight": state[IRN_HEAD]}
    own = model.state_dict()
    state[GENERATOR_KEY] = own[GENERATOR_KEY]
    if wrong := differences(own, state):
        raise UserError(f"--cam-weights: {path} is not a ResNet50 for {recipe.num_classes} classes as IRN's: {wrong}")
    model.load_state_dict(state)
    return fold_batch_norm(model.eval()).place(device)
