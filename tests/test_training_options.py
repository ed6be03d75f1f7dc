"""Protects the options of training: each does what it says to a run of a tiny net, and reaches the run's records."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR

from tests.commands import (
    AS_PUBLISHED,
    RUN_FILES,
    SMALL,
    WHOLE,
    assert_one_sentence,
    make_cub,
    read_json,
    read_log,
    run_files,
    run_inference,
    run_training,
)
from tests.test_amc import TinyBAS
from tests.test_distributed_training import NoNorm
from utils.data.dataset import Dataset
from utils.data.split import Split
from utils.models.recipe import Recipe
from utils.runs.provenance import tf32_settings
from utils.system.devices import set_numerics
from utils.training import log
from utils.training import record as recording
from utils.training import run as running
from utils.training.optim import build_optimizer
from utils.training.run import Run

PICTURES = [(number % 3, True, WHOLE) for number in range(8)]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Eight training pictures, two steps of four, and nothing to evaluate."""
    return make_cub(tmp_path_factory.mktemp("options") / "data", PICTURES, 3)


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves take longer to draw than the tiny nets to train."""
    monkeypatch.setattr(log, "save_curves", lambda path, entries: path.touch())


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[[type], list[tuple]]:
    """Puts a tiny net in the backbones' place; the list tells what was asked for."""

    def use(kind: type[TinyBAS] = TinyBAS) -> list[tuple]:
        asked = []

        def build(recipe: Recipe) -> TinyBAS:
            num_classes = recipe.num_classes
            asked.append((recipe.arch, num_classes, recipe.final_relu, recipe.tap))
            model = kind()
            classifier = model.head[4] = nn.Conv2d(10, num_classes, 1)
            nn.init.uniform_(classifier.bias, 0.5, 1.0)  # keeps the final ReLU alive
            model.classifier_loc[0] = nn.Conv2d(6, num_classes, 3, padding=1)
            model.num_classes = num_classes
            return model

        monkeypatch.setattr("utils.training.run.build", build)
        return asked

    return use


@pytest.fixture
def run(data, tmp_path) -> Callable[..., Path]:
    """Trains two epochs into a folder of the given name, and gives that of the run."""

    def go(name: str, *more: object, code: int = 0, root: Path = data) -> Path:
        folder = tmp_path / name
        options = ["--root", root, "--save_path", folder, "--pretrained", "none", "--epochs", 2, *AS_PUBLISHED, *more]
        if "--resume" in more:
            del options[options.index("--pretrained") : options.index("--epochs")]
        assert run_training(*options) == code
        return folder / "mobilenet"

    return go


def figures(run: Path, *names: str) -> list[float]:
    names = names or ("cls", "frg", "bas", "area", "total")
    return [entry[name] for entry in read_log(run) for name in names]


def newest_state(run: Path) -> dict:
    (*_, entry) = read_json(run / "states" / "index.json")
    return torch.load(run / "states" / entry["file"], weights_only=True)


# --- how it computes


def test_batch_in_parts(tiny, run) -> None:
    """Protects --grad_accum: without batch statistics, parts of a batch give its losses and weights."""
    tiny(NoNorm)
    whole = run("whole")
    for parts in (2, 3):
        ours = run(f"{parts}", "--grad_accum", parts)
        assert figures(ours) == pytest.approx(figures(whole), rel=1e-5)
        assert read_json(ours / "settings.json")["engine"]["grad_accum"] == parts
        for key, expected in newest_state(whole)["model"].items():
            torch.testing.assert_close(newest_state(ours)["model"][key], expected, rtol=1e-4, atol=1e-6, msg=key)


def test_parts_change_batch_statistics(tiny, run) -> None:
    """Protects the claim of --help, and the test above: where there is batch normalisation, parts are not the whole."""
    tiny()
    assert figures(run("parts", "--grad_accum", 2)) != pytest.approx(figures(run("whole")), rel=1e-4)


def test_memory_layout(tiny, run) -> None:
    """Protects --no-channels_last: the same losses up to rounding."""
    tiny()
    ours = run("contiguous", "--no-channels_last")
    assert figures(ours) == pytest.approx(figures(run("last")), rel=1e-4)
    assert read_json(ours / "settings.json")["engine"]["channels_last"] is False


def test_momenta_follow_the_memory_layout(tiny, run) -> None:
    """Protects resuming on another device or with another layout: each momentum still belongs to its own weight."""
    tiny()
    expected = newest_state(run("stretch"))
    ours = run("changed", "--epochs", 1)
    ours = newest_state(run("changed", "--resume", "--no-channels_last"))
    for key, value in expected["model"].items():
        torch.testing.assert_close(ours["model"][key], value, rtol=1e-3, atol=2e-5, msg=key)
    for key, values in expected["optimizer"]["state"].items():
        momentum = ours["optimizer"]["state"][key]["momentum_buffer"]
        assert momentum.is_contiguous()
        torch.testing.assert_close(momentum, values["momentum_buffer"], rtol=1e-2, atol=1e-4)


def test_engine_is_the_runs_own(tiny, run) -> None:
    """Protects --resume without more words: what the run was started with holds, but for what is given anew."""
    tiny(NoNorm)
    run("own", "--epochs", 1, "--grad_accum", 2, "--no-channels_last", "--skip_bad_images", "--amp", "--no-winograd")
    folder = run("own", "--resume", "--grad_accum", 4)
    engine = {"amp": "bf16", "grad_accum": 4, "channels_last": False, "compile": False, "skip_bad_images": True}
    engine["winograd"] = False
    assert read_json(folder / "settings.json")["engine"] == engine


@pytest.mark.parametrize(("flags", "precision"), [(["--amp"], "bf16"), (["--amp", "fp16"], "fp16")])
def test_half_precision(tiny, run, flags: list[str], precision: str) -> None:
    """Protects --amp, on CPUs too: it trains, weights stay float32, the losses stay near float32's."""
    tiny()
    ours, expected = run(precision, *flags), run("none")
    assert figures(ours, "cls", "frg", "area") == pytest.approx(figures(expected, "cls", "frg", "area"), rel=0.05)
    assert figures(ours) != figures(expected)
    assert read_json(ours / "settings.json")["engine"]["amp"] == precision
    for key, value in newest_state(ours)["model"].items():
        assert value.dtype == newest_state(expected)["model"][key].dtype
    assert bool(newest_state(ours)["scaler"]) == (precision == "fp16")


def test_gradient_scaler_goes_on(tiny, run, tmp_path) -> None:
    """Protects fp16 over an interruption: scale and growth are the state's, and grow by the steps that follow."""
    tiny()
    first = run("first", "--amp", "fp16", "--epochs", 1)
    state = newest_state(first)
    assert (state["scaler"]["scale"], state["scaler"]["_growth_tracker"]) == (65536.0, 2)
    state["scaler"] |= {"scale": 128.0, "_growth_tracker": 40}
    torch.save(state, tmp_path / "edited.pth.tar")
    scaler = newest_state(run("second", "--amp", "fp16", "--resume", tmp_path / "edited.pth.tar"))["scaler"]
    assert (scaler["scale"], scaler["_growth_tracker"]) == (128.0, 42)


@pytest.fixture
def restored_tf32() -> Iterator[None]:
    before = tf32_settings()
    yield
    torch.backends.cuda.matmul.allow_tf32 = before["matmul"]
    torch.backends.cudnn.allow_tf32 = before["convolution"]


@pytest.fixture
def restored_determinism(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    torch.use_deterministic_algorithms(False)


def test_deterministic(restored_determinism, tiny, run) -> None:
    """Protects --deterministic: in force and recorded, with cuBLAS's setting; every operation of a run has such a form.

    (On a CPU torch refuses what has none on any device only; the GPU's own are left to the suite for GPUs.)
    """
    tiny()
    (start,) = read_json(run("other", "--epochs", 1) / "settings.json")["starts"]
    assert start["deterministic"] is False
    (start,) = read_json(run("same", "--deterministic", "--epochs", 1) / "settings.json")["starts"]
    assert start["deterministic"] is True and torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    (start,) = read_json(run("third", "--epochs", 1) / "settings.json")["starts"]  # in the same process
    assert start["deterministic"] is False


def test_tf32(restored_tf32, tiny, run) -> None:
    """Protects --tf32: both kinds of products, recorded; torch's own code can still ask; not given, it stays."""
    tiny()
    for name, flags, expected in (("on", ["--tf32"], True), ("kept", [], True), ("off", ["--no-tf32"], False)):
        folder = run(name, *flags, "--epochs", 1)
        (start,) = read_json(folder / "settings.json")["starts"]
        assert start["tf32"] == tf32_settings() == {"matmul": expected, "convolution": expected}
        assert torch.get_float32_matmul_precision() == ("high" if expected else "highest")
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=expected):
            assert torch.backends.cudnn.allow_tf32 is expected
    set_numerics(True, deterministic=False)
    assert tf32_settings() == {"matmul": True, "convolution": True}


# --- what is kept


def test_best_and_newest_states_are_kept(monkeypatch: pytest.MonkeyPatch, tiny, tmp_path) -> None:
    """Protects --eval_every and --keep: an evaluation after each epoch; the best state stays beside the newest."""
    tiny()
    scores = iter([50.0, 75.0, 25.0, 50.0])
    mean = "class_mean"

    def evaluate(*_: object) -> SimpleNamespace:
        summary = {"gt_known_loc": {mean: next(scores), "image_mean": 0.0}, "boxed": 4}
        spec = SimpleNamespace(protocol=SimpleNamespace(mean=mean), thresholds={}, main=None)
        found = {"failures": [], "misfits": [], "checked": 4, "labels": [0]}
        return SimpleNamespace(summary=summary, spec=spec, dead_maps=lambda: None, **found)

    monkeypatch.setattr(Run, "evaluate_test", evaluate)
    monkeypatch.setattr(
        recording, "summarize_map", lambda one, _: {"scores": one.summary, "pixels": None, "threshold": 0.1}
    )
    monkeypatch.setattr(running, "evaluation_record", lambda *_: {})
    data = make_cub(tmp_path / "data", [*PICTURES, (0, False, SMALL)], 3)
    options = ["--root", data, "--save_path", tmp_path, "--pretrained", "none", *AS_PUBLISHED]
    assert run_training(*options, "--epochs", 4, "--eval_every", 1, "--keep", 1) == 0
    folder = tmp_path / "mobilenet"
    kept = {"states/epoch_0002.pth.tar", "states/epoch_0004.pth.tar", "mobilenet3.pth.tar"}
    assert run_files(folder) == RUN_FILES | kept
    index = read_json(folder / "states" / "index.json")
    assert [(entry["epoch"], entry["gt_known_loc"]) for entry in index] == [(2, 75.0), (4, 50.0)]
    assert [entry["test"]["gt_known_loc"][mean] for entry in read_log(folder)] == [50.0, 75.0, 25.0, 50.0]


def test_interrupted_evaluation_is_made_up_for(monkeypatch: pytest.MonkeyPatch, tiny, tmp_path) -> None:
    """Protects the choice of the best state: an epoch whose evaluation was stopped is evaluated after --resume."""
    tiny()
    data = make_cub(tmp_path / "data", [*PICTURES, (0, False, SMALL)], 3)
    options = ["--root", data, "--save_path", tmp_path, *AS_PUBLISHED, "--epochs", 3, "--eval_every", 1]
    evaluate, calls = Run.evaluate_test, []

    def stop_at_first(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments)

    monkeypatch.setattr(Run, "evaluate_test", stop_at_first)
    assert run_training(*options, "--pretrained", "none") == 75
    assert [set(entry) & {"test"} for entry in read_log(tmp_path / "mobilenet")] == [set()]
    assert run_training(*options, "--resume") == 0
    assert [set(entry) & {"test"} for entry in read_log(tmp_path / "mobilenet")] == [{"test"}] * 3
    assert len(calls) == 4


def test_another_runs_state_does_not_mix_with_this_one(tiny, run, capsys) -> None:
    """Protects both runs: a state of one is no way to go on in the folder of another."""
    tiny()
    first = run("first", "--epochs", 1)
    second = run("second", "--epochs", 1)
    before = {path: path.stat().st_mtime_ns for path in second.rglob("*")}
    run("second", "--resume", first / "states" / "epoch_0001.pth.tar", code=2)
    assert_one_sentence(capsys.readouterr().err, str(second / "states" / "epoch_0001.pth.tar"), "is there already")
    assert {path: path.stat().st_mtime_ns for path in second.rglob("*")} == before
    branch = run("branch", "--resume", first / "states" / "epoch_0001.pth.tar")
    assert newest_state(branch)["progress"]["epoch"] == 2


def test_every_ablation_is_recorded(tiny, run) -> None:
    """Protects the truth of settings.json: all that was asked for, in the recipe that trained and in the network."""
    asked = tiny()
    values = {
        "lr": 0.002,
        "lr_decay": 0.3,
        "weight_decay": 0.0,
        "momentum": 0.5,
        "frg_weight": 0.25,
        "area_weight": 3.0,
        "cls_weight": 0.5,
        "bas_weight": 2.0,
        "warmup_epochs": 1,
        "seed": 5,
        "generator_loss": "cross_entropy",
        "ratio_beyond_one": "keep",
        "ratio_compare": "gt",
        "tap": "stem",
        "threshold": 0.4,
        "top_k": 2,
        "batch_size": 2,
        "epochs": 2,
    }
    flags = {"lr_steps": [1], "frozen_f2": False, "final_relu": False, "sync_bn": True, "align_maps": "geometric"}
    argv = [text for name, value in values.items() for text in (f"--{name}", value)]
    folder = run("all", *argv, "--lr_steps", 1, "--no-frozen_f2", "--no-final_relu", "--sync_bn", "--align_maps")
    recipe = read_json(folder / "settings.json")["recipe"]
    assert {name: recipe[name] for name in values | flags} == values | flags
    assert asked == [("mobilenet", 3, False, "stem")]
    first, second = read_log(folder)
    assert (first["lr"], second["lr"]) == pytest.approx((0.002, 0.0006))
    assert "bas" not in first and first["steps"] == 4  # the warm-up; and pictures by two
    weighted = 0.5 * second["cls"] + 0.25 * second["frg"] + 2 * second["bas"] + 3 * second["area"]
    assert second["total"] == pytest.approx(weighted, rel=1e-5)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--recipe", "ijcv"], {"name": "ijcv", "final_relu": False, "threshold": 0.1, "tap": None, "top_k": 3}),
        (["--tap", "model.5"], {"name": "cvpr", "final_relu": True, "threshold": 0.15, "tap": "model.5", "top_k": 3}),
    ],
)
def test_evaluation_needs_no_flags_for_other_runs(tmp_path, flags: list[str], expected: dict) -> None:
    """Protects the way from training to evaluation: head, tap and threshold are the run's, and so are the figures."""
    data = make_cub(tmp_path / "data", [*PICTURES[:4], (1, False, WHOLE), (2, False, SMALL)], 3)
    options = ["--root", data, "--save_path", tmp_path / "runs", "--epochs", 1, *AS_PUBLISHED, *flags]
    assert run_training(*options) == 0
    weights = tmp_path / "runs" / "mobilenet" / "mobilenet0.pth.tar"
    arguments = ["--arch", "mobilenet", "--data", data, "--checkpoint", weights, "--num_workers", 0]
    assert run_inference("CUB", *arguments, "--json", tmp_path / "r.json") == 0
    record = read_json(tmp_path / "r.json")
    assert {name: record["settings"][name] for name in expected} == expected
    assert record["scores"] == read_json(weights.with_name("evaluation.json"))["scores"]
    shutil.rmtree(tmp_path / "runs")


# --- what goes wrong


def spoil(data: Path, folder: Path) -> tuple[Path, Path]:
    """A copy of the data set whose fourth picture cannot be read, and that picture."""
    copy = shutil.copytree(data, folder)
    path = copy / "images" / "001.Class" / "4.jpg"
    path.write_bytes(b"no picture")
    return copy, path


def test_bad_picture_is_replaced(tiny, run, data, tmp_path, capsys) -> None:
    """Protects --skip_bad_images: the run goes on, each epoch names the picture and its stand-in, the log counts."""
    tiny()
    copy, path = spoil(data, tmp_path / "copy")
    folder = run("skipped", "--skip_bad_images", root=copy)
    output = capsys.readouterr().out
    assert output.count(f"cannot read the picture {path}") == 2 and output.count("1 pictures replaced") == 2
    assert f"(until then {path.parents[1] / '002.Class' / '5.jpg'} takes its place)" in output
    assert figures(folder, "replaced_pictures") == [1, 1]
    assert read_json(folder / "settings.json")["engine"]["skip_bad_images"] is True


def test_bad_picture_ends_a_run(tiny, run, data, tmp_path, capsys) -> None:
    """Protects against a silent gap: without the option one sentence names the file, the states are as they were."""
    tiny()
    copy, path = spoil(data, tmp_path / "copy")
    folder = run("ends", "--epochs", 1)
    before = {file.name: file.read_bytes() for file in (folder / "states").iterdir()}
    capsys.readouterr()
    assert run("ends", "--resume", root=copy, code=1) == folder
    assert_one_sentence(capsys.readouterr().err, f"cannot read the picture {path}", "replace it")
    assert {file.name: file.read_bytes() for file in (folder / "states").iterdir()} == before
    assert len(read_log(folder)) == 1 and not (folder / "mobilenet1.pth.tar").exists()


def test_diverging_run_ends(monkeypatch: pytest.MonkeyPatch, tiny, run, capsys) -> None:
    """Protects days of training from NaN: step, losses and pictures are told and written; the last state is good."""
    tiny()
    # The second epoch's rate is 1e30, which no option allows: after its first step the losses are NaN.
    rate = "utils.training.engine.build_scheduler"
    monkeypatch.setattr(rate, lambda optimizer, *_: MultiStepLR(optimizer, [1], gamma=1e33))
    folder = run("diverges", "--save_every_steps", 0, code=1)
    words = (
        "the loss is not finite at epoch 2, step 2 (cls ",
        "total nan",
        "and 2 more",
        "start again with a lower --lr",
    )
    err = capsys.readouterr().err
    assert_one_sentence(err, *words)
    record = read_json(folder / "not_finite.json")
    assert (record["epoch"], record["step"], record["losses"]["total"]) == (2, 2, "nan")
    assert record["losses"].keys() == {"cls", "frg", "bas", "area", "total"}
    assert len(set(record["files"])) == 4 and all(Path(file).is_file() for file in record["files"])
    assert all(file in err for file in record["files"][:2])
    assert run_files(folder) == {"settings.json", "log.jsonl", "curves.png", "not_finite.json"} | {
        "states/index.json",
        "states/epoch_0001.pth.tar",
    }
    state = newest_state(folder)
    assert all(value.isfinite().all() for value in state["model"].values()) and state["progress"]["epoch"] == 1


def test_weights_that_overflow_are_not_saved(monkeypatch: pytest.MonkeyPatch, tiny, run, capsys) -> None:
    """Protects states: where the last step leaves no finite weights, no later one reads its loss; none is saved."""
    tiny()
    rate = "utils.training.engine.build_optimizer"
    monkeypatch.setattr(rate, lambda model, lr, *more: build_optimizer(model, 1e39, *more))
    folder = run("overflows", "--batch_size", 8, "--epochs", 1, code=1)
    assert_one_sentence(capsys.readouterr().err, "the weights are not finite any more; start again with a lower --lr")
    assert not list(folder.rglob("*.pth.tar"))


@pytest.mark.parametrize(
    ("part", "name", "value", "words"),
    [
        ("settings", "top_k", 0, "argument --top_k: 0 must be at least 1"),
        ("settings", "threshold", 2.0, "argument --threshold: 2.0 must be at least 0 and at most 1"),
        ("settings", "ratio_compare", "x", "argument --ratio_compare: invalid choice: 'x'"),
        ("settings", "generator_loss", "x", "argument --generator_loss: invalid choice: 'x'"),
        ("settings", "lr_steps", (1, 1), "--lr_steps names an epoch twice"),
        ("engine", "grad_accum", 0, "argument --grad_accum: 0 must be at least 1"),
        ("engine", "amp", "fp8", "argument --amp: invalid choice: 'fp8'"),
    ],
)
def test_settings_of_a_state_are_those_of_a_run(tiny, run, tmp_path, capsys, part, name, value, words) -> None:
    """Protects resuming: what the command line would refuse is refused in a state, with its name, and not computed."""
    tiny()
    state = newest_state(run("first", "--epochs", 1))
    state[part][name] = value
    torch.save(state, tmp_path / "edited.pth.tar")
    capsys.readouterr()
    run("second", "--resume", tmp_path / "edited.pth.tar", code=1)
    assert_one_sentence(capsys.readouterr().err, str(tmp_path / "edited.pth.tar"), words, "give another state")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--cls_weight", 0, "--frg_weight", 0, "--bas_weight", 0, "--area_weight", 0],
            "all four losses have the weight 0",
        ),
        (["--top_ks", 1, 2], "--top_ks belongs to --demo"),
        (["--tap", "stem"], "mobilenet has no tap 'stem'; choose one of model."),
        (["--warmup_epochs", 2], "--warmup_epochs 2 leaves none of 2 epochs"),
    ],
)
def test_options_that_cannot_work(run, capsys, flags: list, words: str) -> None:
    """Protects users from runs that would learn nothing: exit code 2, and nothing is written."""
    folder = run("never", *flags, code=2)
    assert words in capsys.readouterr().err and not folder.exists()


def test_batch_that_cannot_be_shared_out(monkeypatch: pytest.MonkeyPatch, run, capsys) -> None:
    """Protects the meaning of --batch_size: shares must be equal."""
    monkeypatch.setattr("utils.training.run.process_count", lambda: 3)
    folder = run("never", code=2)
    assert_one_sentence(capsys.readouterr().err, "a batch of 4 cannot be shared out among 3 processes", "--batch_size")
    assert not folder.exists()


# --- where a run begins and ends


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_stopped_while_it_starts(monkeypatch: pytest.MonkeyPatch, tiny, run, capsys, name: str) -> None:
    """Protects a scheduler's requeueing: also while pictures are listed and states read, the exit code is 75."""
    tiny()
    load = Run._load_splits

    def stop(self: Run) -> None:
        os.kill(os.getpid(), getattr(signal, name))
        load(self)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Run, "_load_splits", stop)
    run("stopped", code=75)
    words = f"stopped by {name}; nothing has been trained since this start; give the same command again"
    assert_one_sentence(capsys.readouterr().err, words)
    assert signal.getsignal(signal.SIGTERM) == before
    monkeypatch.undo()
    tiny()
    run("stopped")


def test_in_a_thread(tiny, run) -> None:
    """Protects notebooks and servers, where commands are not run by the main thread: no signal can be caught there."""
    tiny()
    with ThreadPoolExecutor(1) as pool:
        assert (pool.submit(run, "thread").result() / "mobilenet1.pth.tar").is_file()


def test_rate_of_an_epoch_that_is_resumed(monkeypatch: pytest.MonkeyPatch, tiny, run) -> None:
    """Protects the log and the curve of rates that fall at every step: an epoch has its first step's, also where it
    was resumed behind it."""
    tiny()
    whole = run("whole", "--poly_steps", 4, "--save_every_steps", 1, "--keep", 9)
    rates = figures(whole, "lr")
    assert rates[0] > rates[1]
    parts = run("parts", "--poly_steps", 4, "--resume", whole / "states" / "epoch_0001_step_00000001.pth.tar")
    assert figures(parts, "lr")[-1] == pytest.approx(rates[1], rel=1e-12)


def test_stopped_while_the_test_set_is_listed(monkeypatch: pytest.MonkeyPatch, tiny, run, capsys) -> None:
    """Protects from a signal that is taken for a failure, as that of a test set, which a run can do without: nothing of
    the start catches it."""
    tiny()
    load = Dataset.load_split

    def stop(self: Dataset, root: Path, name: str) -> Split:
        if name == "test":
            os.kill(os.getpid(), signal.SIGTERM)
        return load(self, root, name)

    monkeypatch.setattr(Dataset, "load_split", stop)
    folder = run("stopped", code=75)
    assert_one_sentence(capsys.readouterr().err, "stopped by SIGTERM; nothing has been trained since this start")
    assert not list(folder.glob("**/*.pth.tar")) and not (folder / "settings.json").exists()
