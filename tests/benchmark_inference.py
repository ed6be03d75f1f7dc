"""Speed of `BAS_inference.py` against the authors' way of inference: `python -m tests.benchmark_inference`.

Both run as commands, start-up included, one after the other, on the same checkpoint and the same of the demo's test
pictures, with the CUB recipe and ten crops; their figures must be identical, or the benchmark fails.

The authors' way, step by step as their evaluation goes:
- one process, one picture at a time; the ten crops and the map are two passes, each decoding and transforming anew;
- 11 forward passes a picture, each of a single crop and with everything in it: f1, f2, all K generator maps, the
  foreground's scores, a deep copy of f2 and the background branch through it;
- the mask, and the pixels of each of its components, in Python loops over pixels. (The components themselves are
  labelled by compiled code: in doubt, the faster reading.)

With `--forward`, only our forward pass is timed: what folded batch normalisation, channels-last and batches bring.
Times are the machine's own: good for ratios within one run, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

import CUB.Model
from CUB.DataLoader import load_split
from tests.reference_weights import fill
from utils.data.transforms import CENTRE_CROP, IMAGENET_MEAN, IMAGENET_STD
from utils.demo.compose import class_names, compose
from utils.models.bas import BAS
from utils.models.checkpoint import load_weights, save_weights
from utils.models.fold import fold_batch_norm
from utils.models.registry import ARCHS
from utils.system.options import POSITIVE, SIDE, CommandParser

ROOT = Path(__file__).resolve().parents[1]
SCORES = ("top1_loc", "top5_loc", "gt_known_loc", "top1_cls", "top5_cls")
MEANS = ("class_mean", "image_mean")
CROPS = 10
TRAINING_PICTURES = 2  # a class
SHARPNESS = 12.0  # of the fitted outputs before sigmoid and softmax


# --- the authors' way


@torch.no_grad()
def evaluate_as_the_authors(arch: str, data: Path, checkpoint: Path, size: int) -> dict[str, dict[str, float]]:
    """Evaluates a checkpoint on CUB-like test pictures; returns the five scores, each in its two means, in percent."""
    split, recipe = load_split(data, "test"), CUB.Model.recipe(arch)
    model = CUB.Model.build(arch, len(split.class_names))
    load_weights(model, checkpoint)
    model.eval()
    resize_size = resize_for(size)
    resize = transforms.Resize((resize_size, resize_size))
    to_tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    ten_crops = transforms.Compose([resize, transforms.TenCrop(size)])
    centre_crop = transforms.Compose([resize, transforms.CenterCrop(size), to_tensor])
    labels = split.labels.tolist()

    predictions = []
    for path, label in zip(split.paths, labels, strict=True):
        crops = [to_tensor(crop) for crop in ten_crops(Image.open(path).convert("RGB"))]
        probabilities = [forward_with_everything(model, crop[None], label)[0].softmax(dim=1) for crop in crops]
        predictions.append(torch.cat(probabilities).mean(dim=0).topk(5).indices.tolist())

    localized = []
    for path, label, image_id in zip(split.paths, labels, split.ids, strict=True):
        image = Image.open(path).convert("RGB")
        logits, maps = forward_with_everything(model, centre_crop(image)[None], label)
        classes = logits[0].topk(min(recipe.top_k, model.num_classes)).indices
        box = box_by_pixel_loops(maps[0, classes].mean(dim=0).numpy(), recipe.threshold, size)
        truths = (crop_box(truth, image.size, resize_size, size) for truth in split.boxes[image_id].tolist())
        localized.append(max(overlap(box, truth) for truth in truths) > 0.5)
    return score(labels, predictions, localized)


def forward_with_everything(model: BAS, image: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """The authors' forward pass, which computes at evaluation what only training reads.

    Args:
        model: in evaluation mode.
        image: (1, 3, S, S).
        label: the true class.

    Returns:
        Logits (1, K) and all foreground maps (1, K, h, w).
    """
    features = model.f1(image)
    f2 = nn.Sequential(*model.f2_stages(), model.head)
    class_maps = f2(features)
    maps = model.classifier_loc(features)
    foreground = maps[:, label : label + 1]
    frozen = copy.deepcopy(f2)
    frozen(features * (1 - foreground)).mean(dim=(2, 3))
    (class_maps * nn.functional.avg_pool2d(foreground, 2)).mean(dim=(2, 3))
    return class_maps.mean(dim=(2, 3)), maps


def box_by_pixel_loops(foreground_map: np.ndarray, threshold: float, size: int) -> list[int]:
    """(h, w) map -> xyxy in crop pixels around the largest component above the threshold."""
    spread = foreground_map.max() - foreground_map.min()
    if spread == 0:
        return [0, 0, size, size]
    values = cv2.resize((foreground_map - foreground_map.min()) / spread, (size, size)).tolist()
    mask = np.zeros((size, size), dtype=np.uint8)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            if value > threshold:
                mask[y, x] = 1
    components = cv2.connectedComponents(mask, connectivity=8)[1].tolist()
    areas: dict[int, int] = {}
    for row in components:
        for component in row:
            if component:
                areas[component] = areas.get(component, 0) + 1
    if not areas:
        return [0, 0, size, size]
    largest = max(areas, key=areas.get)  # of equal ones the first in reading order
    box = [size, size, 0, 0]
    for y, row in enumerate(components):
        for x, component in enumerate(row):
            if component == largest:
                box = [min(box[0], x), min(box[1], y), max(box[2], x + 1), max(box[3], y + 1)]
    return box


def crop_box(box: Sequence[float], image_size: Sequence[int], resize_size: int, size: int) -> list[float]:
    """A true box in original pixels -> in those of the centre crop, clipped to it."""
    margin = (resize_size - size) / 2
    scaled = [value * resize_size / image_size[axis % 2] - margin for axis, value in enumerate(box)]
    return [max(scaled[0], 0), max(scaled[1], 0), min(scaled[2], size), min(scaled[3], size)]


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """IoU of two boxes with the +1 convention."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + 1, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + 1, 0)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def score(labels: list[int], predictions: list[list[int]], localized: list[bool]) -> dict[str, dict[str, float]]:
    """The five scores in percent: accuracy of each class averaged over the classes, and over all images."""
    right: dict[str, list[bool]] = {name: [] for name in SCORES}
    for label, best, found in zip(labels, predictions, localized, strict=True):
        right["top1_loc"].append(found and best[0] == label)
        right["top5_loc"].append(found and label in best)
        right["gt_known_loc"].append(found)
        right["top1_cls"].append(best[0] == label)
        right["top5_cls"].append(label in best)
    scores = {}
    for name, flags in right.items():
        classes = [[flag for flag, own in zip(flags, labels, strict=True) if own == label] for label in set(labels)]
        class_mean = sum(sum(members) / len(members) for members in classes) / len(classes)
        scores[name] = {"class_mean": 100 * class_mean, "image_mean": 100 * sum(flags) / len(flags)}
    return scores


# --- what both evaluate


def prepare_pictures(folder: Path, count: int, train_per_class: int = TRAINING_PICTURES) -> Path:
    """Composes the demo's data set and keeps `count` test pictures, spread over the classes.

    The other test pictures are named training pictures in CUB's list.
    """
    classes = len(class_names())
    folder = compose(folder, train_per_class=train_per_class, test_per_class=ceil(count / classes))
    listing = folder / "train_test_split.txt"
    lines = [line.split() for line in listing.read_text(encoding="utf-8").splitlines()]
    tests = [index for index, (_, is_train) in enumerate(lines) if is_train == "0"]
    kept = {tests[position] for position in np.linspace(0, len(tests) - 1, count).round().astype(int)}
    flags = (f"{key} {int(index not in kept)}\n" for index, (key, _) in enumerate(lines))
    listing.write_text("".join(flags), encoding="utf-8")
    return folder


@torch.no_grad()
def fitted_model(arch: str, data: Path, size: int) -> BAS:
    """A model that predicts something in seconds: random weights, the last convolutions fitted by least squares.

    Classes and boxes then differ from picture to picture, and no scores tie at the final ReLU's 0.
    """
    model = fill(CUB.Model.build(arch, len(class_names()))).eval()
    split = load_split(data, "train")
    transform = transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    pictures = [Image.open(path).convert("RGB") for path in split.paths]
    features = torch.cat([model.f1(transform(picture)[None]) for picture in pictures])
    masks = torch.zeros(len(features), 1, *features.shape[2:])
    for mask, picture, image_id in zip(masks, pictures, split.ids, strict=True):
        scale = np.array([features.shape[3], features.shape[2]] * 2) / np.array([*picture.size] * 2)
        for x0, y0, x1, y1 in (split.boxes[image_id] * scale).round().astype(int):
            mask[:, y0:y1, x0:x1] = 1
    weight, bias = fit_linear(features.movedim(1, -1).flatten(0, -2), masks.flatten(0, -1)[:, None])
    generator = model.classifier_loc[0]
    generator.weight.zero_()[:, :, 1, 1] = SHARPNESS * weight
    generator.bias.copy_(SHARPNESS * (bias - 0.5))

    before_last = nn.Sequential(*model.f2_stages(), model.head[:4])
    activations = torch.cat([before_last(feature[None]) for feature in features])
    is_class = nn.functional.one_hot(torch.from_numpy(split.labels), model.num_classes)
    weight, bias = fit_linear(activations.mean(dim=(2, 3)), SHARPNESS * is_class)
    last = model.head[4]
    last.weight.copy_(weight[:, :, None, None])
    last.bias.copy_(bias)
    last.bias.sub_(last(activations).min())
    return model


def fit_linear(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression: (n, C) and (n, m) -> weight (m, C) and bias (m,), both float32."""
    inputs, targets = inputs.double(), targets.double()
    centre, level = inputs.mean(dim=0), targets.mean(dim=0)
    inputs = inputs - centre
    covariance = inputs.T @ inputs
    covariance.diagonal().add_(0.01 * covariance.diagonal().mean())
    weight = torch.linalg.solve(covariance, inputs.T @ (targets - level)).T
    return weight.float(), (level - weight @ centre).float()


def resize_for(size: int) -> int:
    """Side of the resized picture that belongs to a crop: 256 to 224."""
    return round(size * 256 / 224)


# --- the comparison


def compare(arch: str, images: int, size: int) -> bool:
    """Times both commands on one checkpoint and prints the result; returns whether the figures are identical."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = prepare_pictures(folder / "data", images)
        checkpoint = save_weights(fitted_model(arch, data, size), folder / f"{arch}99.pth.tar")
        common = ["--arch", arch, "--data", data, "--checkpoint", checkpoint]
        authors = [sys.executable, "-m", "tests.benchmark_inference", *common, "--size", size]
        ours = [sys.executable, "BAS_inference.py", *common, "--resize_size", resize_for(size), "--crop_size", size]
        results, seconds = {}, {}
        for title, command, cwd in (("authors", authors, ROOT), ("ours", ours, ROOT / "CUB")):
            result = folder / f"{title}.json"
            seconds[title] = run_timed([*command, "--json", result], cwd)
            results[title] = json.loads(result.read_text(encoding="utf-8"))["scores"]
    rates = {title: images / value for title, value in seconds.items()}
    print(f"\n{arch}, {images} pictures, {size} px, ten crops; the whole command's seconds; class mean/image mean")
    print(
        f"{'':12}{'s':>9}{'images/s':>10}" + "".join(f"{name:>16}" for name in SCORES) + "   (class mean / image mean)"
    )
    for title, scores in results.items():
        pairs = ["/".join(f"{scores[name][mean]:.2f}" for mean in MEANS) for name in SCORES]
        print(f"{title:12}{seconds[title]:9.1f}{rates[title]:10.3f}" + "".join(f"{pair:>16}" for pair in pairs))
    same = all(
        abs(results["authors"][name][mean] - results["ours"][name][mean]) < 1e-9 for name in SCORES for mean in MEANS
    )
    verdict = "identical" if same else "DIFFERENT"
    print(f"{arch}: {rates['ours'] / rates['authors']:.2f} times as fast, figures {verdict}", flush=True)
    return same


def run_timed(command: Sequence[object], cwd: Path) -> float:
    """Runs a command to its end; returns its seconds, start-up included. Its own words are shown where it fails."""
    start = time.perf_counter()
    finished = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if finished.returncode:
        sys.exit(f"the command failed: {' '.join(map(str, command))}\n{finished.stdout}{finished.stderr}")
    return seconds


# --- what each means brings


def compare_forward_passes(arch: str, batch_size: int, size: int, repeats: int) -> None:
    """Times encoding and fusion in alternating repeats; prints the median time and the median ratio to the plain one.

    "plain" is the model as trained, contiguous, one picture of ten crops; each other row changes what it names.
    """
    plain = fill(CUB.Model.build(arch, len(class_names()))).eval()
    folded = fold_batch_norm(plain)
    last, folded_last = (copy.deepcopy(model).to(memory_format=torch.channels_last) for model in (plain, folded))
    torch.manual_seed(0)
    crops, top_k = torch.randn(batch_size, CROPS, 3, size, size), CUB.Model.recipe(arch).top_k

    def run(model: BAS, pictures: int) -> Callable[[], object]:
        # The crops stay contiguous, as they come from cutting; the first convolution lays them out anew.
        @torch.no_grad()
        def forward() -> object:
            encoding = model.encode_crops(crops[:pictures], CENTRE_CROP)
            return model.fuse_top_k(encoding.features, encoding.scores, top_k)

        return forward

    variants = {
        "plain": (run(plain, 1), 1),
        "folded": (run(folded, 1), 1),
        "channels_last": (run(last, 1), 1),
        f"batch {batch_size}": (run(plain, batch_size), batch_size),
        "folded, channels_last": (run(folded_last, 1), 1),
        f"folded, channels_last, batch {batch_size}": (run(folded_last, batch_size), batch_size),
    }
    times: dict[str, list[float]] = {title: [] for title in variants}
    for repeat in range(repeats + 1):
        for title, (forward, pictures) in variants.items():
            start = time.perf_counter()
            forward()
            if repeat:  # the first round warms up
                times[title].append((time.perf_counter() - start) / pictures)
    print(f"\n{arch}, {size} px, forward pass of ten crops, {repeats} repeats")
    print(f"{'':40}{'s a picture':>14}{'plain / this':>14}")
    for title, values in times.items():
        ratio = median(first / value for first, value in zip(times["plain"], values, strict=True))
        print(f"{title:40}{median(values):14.3f}{ratio:14.2f}", flush=True)


def main() -> None:
    """Compares every backbone asked for; exit code 1 where figures differ."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--arch", choices=ARCHS, nargs="+", default=list(ARCHS))
    parser.add_argument("--images", type=POSITIVE, default=48, help="test pictures (default: %(default)s)")
    parser.add_argument("--size", type=SIDE, default=224, help="side of the crops (default: %(default)s)")
    parser.add_argument("--forward", action="store_true", help="time our forward pass alone, in its variants")
    parser.add_argument("--batch_size", type=POSITIVE, default=8, help="of --forward (default: %(default)s)")
    parser.add_argument("--repeats", type=POSITIVE, default=5, help="of --forward (default: %(default)s)")
    # Given together, they make this process the authors' command.
    for option in ("--data", "--checkpoint", "--json"):
        parser.add_argument(option, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.json:
        scores = evaluate_as_the_authors(args.arch[0], args.data, args.checkpoint, args.size)
        args.json.write_text(json.dumps({"scores": scores}), encoding="utf-8")
        return
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    if args.forward:
        for arch in args.arch:
            compare_forward_passes(arch, args.batch_size, args.size, args.repeats)
        return
    same = [compare(arch, args.images, args.size) for arch in args.arch]
    sys.exit(0 if all(same) else 1)


if __name__ == "__main__":
    main()
