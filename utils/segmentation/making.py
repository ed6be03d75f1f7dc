"""`python -m utils.segmentation maps`: the maps of a list's pictures, as they come."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.data.dataset import Dataset
from utils.data.images import ImageError, read_image
from utils.inference.loading import Loaded, load
from utils.models.bas import BAS
from utils.models.checkpoint import GENERATOR_KEY, clean_state, differences, load_file
from utils.models.fold import fold_batch_norm
from utils.models.registry import build
from utils.segmentation.arguments import MapSettings
from utils.segmentation.kinds import TITLES
from utils.segmentation.maps import make_maps
from utils.segmentation.store import RECORD, save_maps
from utils.system.errors import UsageError, UserError
from utils.system.files import read_json, require_writable, write_text
from utils.system.memory import peak_memory_mib
from utils.system.processes import is_main, process_count, process_group, rank, wait_for_all
from utils.system.progress import progress_bar

# Of IRN's network for class activation maps, whose layers have several names each in its file.
IRN_TRUNK, IRN_HEAD = "resnet50.", "classifier.weight"
TIMEOUT = 3600.0  # seconds; the processes wait for one another at the end alone


def make_all(dataset: Dataset, settings: MapSettings, device: torch.device) -> None:
    """Makes the maps that are not there yet; the processes of torchrun share the pictures.

    Raises:
        UserError: whatever the user can put right; what was made stays.
    """
    split = dataset.load_list(settings.root or dataset.root, settings.of_list)
    require_writable(settings.maps, "--maps")
    print(f"{dataset.name} {settings.of_list}: {len(split)} pictures; {split.layout}")
    loaded = load(dataset, settings.arch, settings.checkpoint, device=str(device))
    cam_model = None if settings.cam_weights is None else load_cam_network(dataset, settings.cam_weights, device)
    with process_group(device, TIMEOUT):
        if is_main():
            _describe(settings, loaded)
        wait_for_all()
        assert split.positives is not None  # of a data set that segments
        todo = [
            index
            for index, image_id in enumerate(split.ids)
            if not (settings.maps / f"{image_id}.npz").is_file()
            or (settings.npy and not (settings.maps / f"{image_id}.npy").is_file())
        ][rank() :: process_count()]
        begin, failures = time.perf_counter(), []
        for index in progress_bar(todo, "maps"):
            image_id, classes = split.ids[index], np.flatnonzero(split.positives[index]).tolist()
            try:
                picture = read_image(split.paths[index])
            except ImageError as error:
                failures.append(str(error))
                continue
            maps = make_maps(loaded.model, picture, classes, device, settings.map, cam_model, settings.scales)
            if not np.isfinite(maps.high_res).all():
                raise UserError(f"{split.paths[index]}: the network's maps are not finite; take another checkpoint")
            save_maps(settings.maps, image_id, maps, settings.npy)
        seconds = time.perf_counter() - begin
        wait_for_all()
    made = len(todo) - len(failures)
    memory = peak_memory_mib(device)
    used = "" if memory is None else f", {memory:.0f} MiB at most"
    print(
        f"{made} pictures in {seconds:.1f} s, {made / max(seconds, 1e-9):.2f} a second{used}; maps in {settings.maps}"
    )
    if failures:
        raise UserError(f"{len(failures)} pictures have no maps; the first: {failures[0]}")


def _describe(settings: MapSettings, loaded: Loaded) -> None:
    """Writes what the folder's maps are; UsageError if there are others in it."""
    record: dict[str, Any] = {
        "map": settings.map,
        "title": TITLES[settings.map],
        "checkpoint": str(loaded.checkpoint.path.resolve()),
        "cam_weights": None if settings.cam_weights is None else str(settings.cam_weights.resolve()),
        "scales": list(settings.scales),
    }
    path = settings.maps / RECORD
    if path.is_file():
        before = read_json(path, "is no record of maps", "name another --maps folder", dict)
        changed = [name for name in record if before.get(name) != record[name]]
        if changed:
            name = changed[0]
            raise UsageError(
                f"{settings.maps} holds maps of {name} {before.get(name)!r}, not {record[name]!r}; name another --maps "
                "folder"
            )
    write_text(path, json.dumps(record, indent=2) + "\n")


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
    expected = {key: tuple(value.shape) for key, value in own.items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    if expected != found:
        raise UserError(
            f"--cam-weights: {path} is not a ResNet50 for {recipe.num_classes} classes as IRN's: "
            f"{differences(expected, found)}"
        )
    model.load_state_dict(state)
    return fold_batch_norm(model.eval()).place(device)
