"""Where a checkpoint's maps are drawn: calibrated on training pictures once, and kept beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.data.dataset import own_dataset
from utils.data.split import Split
from utils.evaluation.calibration import (
    Calibration,
    calibrate,
    kinds_to_calibrate,
    offset_key,
    read_calibration,
    with_offsets,
)
from utils.evaluation.kinds import MapKind
from utils.evaluation.spec import EvaluationSpec
from utils.inference.loading import Loaded
from utils.models.recipe import CALIBRATED, marked
from utils.runs.recorded import OFFSETS, SETTINGS_FILE, change_settings
from utils.system.errors import UserError
from utils.system.files import file_digest, read_json, write_json
from utils.system.processes import broadcast_value, is_main

SUFFIX = ".offsets.json"  # beside a file that no run here wrote
BATCH, WORKERS = 8, 0  # as a script of a user's own can bear them


def place_maps(
    loaded: Loaded, spec: EvaluationSpec, root: Path | None = None, batch_size: int = BATCH, num_workers: int = WORKERS
) -> EvaluationSpec:
    """The spec with the offsets of its kinds of maps, if it wants them: those that are kept with the checkpoint, else
    found on training pictures now and kept. No test picture takes part.

    Args:
        loaded: the network.
        spec: what is asked; as it is where its alignment needs no offsets.
        root: the data set's folder; that of the checkpoint's run, or the data set's own, where None.
        batch_size, num_workers: of the loader.

    Raises:
        UserError: nothing is kept, and the training pictures cannot be read.
    """
    if spec.align != CALIBRATED:
        return spec
    keys = {kind: _key(loaded, kind, spec) for kind in kinds_to_calibrate(loaded.model, spec)}
    kept = _read_kept(loaded)
    missing = [kind for kind, key in keys.items() if key not in kept]
    if missing:
        split = _training_split(loaded, root)
        print(f"where maps look is told by pictures of the {split.name} split, once for this checkpoint")
        found = calibrate(loaded.model, split, spec, missing, loaded.device, batch_size, num_workers)
        found = broadcast_value(found)  # of several processes, whose devices may round differently, the first one's
        kept = {**kept, **{keys[kind]: one for kind, one in found.items()}}
        if is_main():
            _keep(loaded, kept)
    for kind, key in keys.items():
        print(kept[key].line(kind.title))
    return with_offsets(spec, {kind: kept[key] for kind, key in keys.items()})


def _key(loaded: Loaded, kind: MapKind, spec: EvaluationSpec) -> str:
    """Under which an offset is kept: maps look elsewhere where the network is built otherwise than in training."""
    recipe, recorded = loaded.recipe, loaded.recorded
    built = recorded.settings if recorded.is_run else vars(loaded.dataset.recipe(recipe.arch, recipe.name))
    given = [name for name in marked("of_heads") if built.get(name, getattr(recipe, name)) != getattr(recipe, name)]
    return ", ".join([offset_key(kind, spec), *(f"{name} {getattr(recipe, name)}" for name in given)])


def _training_split(loaded: Loaded, root: Path | None) -> Split:
    dataset, place = loaded.dataset, root or loaded.recorded.root or loaded.dataset.root
    if root is None and loaded.recorded.is_own:
        dataset = own_dataset(dataset, place)
    try:
        return dataset.load_split(place, "train")
    except UserError as error:
        raise UserError(
            "--align_maps calibrated needs training pictures, once for a checkpoint, and they cannot be read: "
            f"{error} (or give --align_maps geometric)"
        ) from error


def _read_kept(loaded: Loaded) -> dict[str, Calibration]:
    """Of the checkpoint's run, or from the file beside the checkpoint if that is about this very one."""
    path = _beside(loaded)
    if not path.is_file():
        return {}
    digest = None if loaded.recorded.is_final else file_digest(loaded.checkpoint.path)

    def interpret(content: Mapping[str, Any]) -> dict[str, Calibration]:
        if digest is not None and content["sha256"] != digest:
            return {}
        return {key: read_calibration(one) for key, one in content.get(OFFSETS, {}).items()}

    return read_json(path, "holds no offsets of maps", f"take {OFFSETS} out of it, and they are found anew", interpret)


def _keep(loaded: Loaded, found: Mapping[str, Calibration]) -> None:
    offsets = {key: one.record() for key, one in found.items()}
    try:
        if loaded.recorded.is_final:
            change_settings(loaded.checkpoint.path, **{OFFSETS: offsets})
        else:
            record = {"sha256": file_digest(loaded.checkpoint.path), OFFSETS: offsets}
            write_json(_beside(loaded), record)
    except UserError as error:  # a folder that is not the user's: it is found anew the next time
        print(f"not kept: {error}")


def _beside(loaded: Loaded) -> Path:
    path = loaded.checkpoint.path
    return path.with_name(SETTINGS_FILE if loaded.recorded.is_final else path.name + SUFFIX)
