"""Every command, link and table of the documentation holds: what the Markdown of any folder says, the code does."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image

import CUB.DataLoader
import CUB.Model
import ILSVRC.DataLoader
import ILSVRC.Model
import train
from tests.commands import MAKE, NOISE, SIZES, SMALL_HEADS, save_noise, write_random_net
from tests.documents import (
    ROOT,
    Program,
    blocks,
    code_spans,
    commands,
    dead_links,
    documents,
    missing_files,
    options_of,
    parse,
    parser_of,
    program_of,
    run_python,
    start,
)
from utils.models.registry import ARCHS

DATASETS = {"CUB": CUB, "ILSVRC": ILSVRC}
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
# Programs that are run neither on stand-ins here nor by .ci/run -> the test that runs them.
RUN_BY = {
    "tests.benchmark_calibration": "test_placing.py",
    "tests.benchmark_classes": "test_benchmark_classes.py",
    "tests.benchmark_processes": "test_benchmark_processes.py",
    "tests.benchmark_training": "test_benchmark_training.py",
    "tests.gpu": "test_gpu_suite.py",
    "utils.demo.ablation": "test_ablation_grid.py",
    "utils.exploratory": "test_exploratory.py",
    "utils.inference": "test_datasets.py",
    "utils.segmentation": "test_segmentation.py",
    "Img": "test_figures_command.py",
}
BENCHMARKS = {
    "tests.benchmark": ["--counts", "--dataset", "CUB", "--arch", "mobilenet", "--size", "64"],
    "tests.benchmark_scoring": ["--repeats", "1", "--scorers", "0", "1", "--pictures", "40"],
    "tests.benchmark_inference": ["--images", "4", "--arch", "mobilenet", "--size", "32"],
}
SCRIPTS = ("train.py", "CUB/BAS_inference.py", "ILSVRC/BAS_inference.py")
FILE_TOOLS = {"mkdir", "cp", "echo"}
OTHER_TOOLS = {
    *("python", "python3", "pip", "ruff", "mypy", "pre-commit", ".ci/run", "torchrun"),
    *("[", "cd", "exit", "head", "scontrol"),
}
OTHER_DATASETS = {name for name in train.DATASETS if name not in DATASETS}
TOO_LARGE = {"--demo", "--download", "--help"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


WITH_SHELL = [path for path in documents() if blocks(path.read_text(encoding="utf-8"), "sh")]
ARRAYS_TO_SCORES = ROOT / "utils" / "evaluation" / "README.md"  # run and compared in test_map_files.py
WITH_PYTHON = [path for path in documents() if blocks(path.read_text(encoding="utf-8"), "python")]


def scripts_of(text: str) -> list[str]:
    """The shell of a document: its blocks, and the commands in its sentences (those of BAS_inference.py are in CUB)."""
    spans = [span for span in code_spans(text) if re.match(r"(python|torchrun .*\.py) ", span)]
    return [*blocks(text, "sh"), *(f"cd CUB && {span}" if "BAS_inference" in span else span for span in spans)]


def programs_in(text: str) -> list[Program]:
    found = (program_of(command) for script in scripts_of(text) for command in commands(script))
    return [program for program in found if program is not None]


def check_commands(text: str) -> None:
    """AssertionError, naming the command, where one of a document's is none, or its program refuses its arguments."""
    for script in scripts_of(text):
        for command in commands(script):
            assert Path(command.words[0]).name in FILE_TOOLS | OTHER_TOOLS or command.words[0] in OTHER_TOOLS, command
            for word in command.words:
                assert not word.startswith("tests/") or (ROOT / word).exists(), f"{command.words} names no file"
            if (program := program_of(command)) is not None:
                parse(parser_of(program.name), list(program.arguments))


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_commands_are_understood(path: Path) -> None:
    """Protects who copies a command: its program is there, and its parser takes every option and value."""
    check_commands(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_options_exist(path: Path) -> None:
    """Protects who reads of an option: some command has it. (A comma or a letter may stand for its value.)"""
    from torch.distributed.run import get_args_parser

    names = [*SCRIPTS, *RUN_BY, *BENCHMARKS]
    known = {option for parser in map(parser_of, names) for option in options_of(parser)}
    known |= set(get_args_parser()._option_string_actions)
    spans = code_spans(path.read_text(encoding="utf-8"))
    options = {option for span in spans for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)}
    assert options <= known, options - known


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    """Protects who follows a link or looks for a file: it is there, and the heading in it."""
    assert dead_links(path) == [] and missing_files(path) == []


def test_every_program_is_run() -> None:
    """Protects commands from being parsed alone: each program that the documentation names is run by a test or .ci."""
    named = {program.name for path in documents() for program in programs_in(path.read_text(encoding="utf-8"))}
    assert named >= {*SCRIPTS, *RUN_BY, *BENCHMARKS, "tests.readme_tables"}
    for name in named - {*SCRIPTS, *BENCHMARKS}:
        file = RUN_BY.get(name)
        text = (ROOT / "tests" / file).read_text(encoding="utf-8") if file else CI
        assert name in text, f"{name} is run by no test; say in RUN_BY by which"


@pytest.mark.parametrize(("name", "arguments"), BENCHMARKS.items(), ids=BENCHMARKS)
def test_benchmarks_run(name: str, arguments: list[str], capsys) -> None:
    """Protects the commands that made the tables: they run, here on little, and print rows."""
    assert start(name, *arguments) == 0
    assert re.search(r"(mobilenet|here: --sweep)\D+\d+\.\d", capsys.readouterr().out)


def test_both_commands_are_those_that_ci_runs() -> None:
    """Protects the newcomer's two commands: `.ci/run` takes them from this file by their ends, and finds one each."""
    lines = [
        line for block in blocks((ROOT / "README.md").read_text(encoding="utf-8"), "sh") for line in block.split("\n")
    ]
    ends = re.findall(r"readme_command '(.*)'", CI)
    assert len(ends) == 2
    for end in ends:
        assert len([line for line in lines if line.startswith("python3 -m venv .venv") and line.endswith(end)]) == 1


def test_the_first_page_stays_short() -> None:
    """Protects the reader: 200 lines, and the rest in the folders."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize(
    "text", ["`python train.py --archs vgg`", "```sh\ncd CUB && python BAS_inference.py --arch vit\n```"]
)
def test_wrong_options_are_found(text: str) -> None:
    with pytest.raises(AssertionError, match=r"--archs|'vit'"):
        check_commands(text)


@pytest.mark.parametrize(
    "line",
    [
        "torchrun --nproc_per_nodes=4 train.py",
        "srun bash -c 'RANK=0 exec python train.py \\\n  --arch vgg --amps'",
        "python trains.py",
        "cd ILSVRC\npython train.py --arch vgg",
        "python -m tests.benchmark --count",
        "python -m pytest tests/test_nothing.py",
        "pyhton train.py",
    ],
)
def test_wrong_commands_are_found(line: str) -> None:
    with pytest.raises(AssertionError):
        check_commands(f"```sh\n{line}\n```")


def test_dead_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# The head\n[a](page.md) [b](#the-head) [c](gone.md) [d](page.md#gone) `[e](code)` [f](https://a.b/c)"
    )
    assert dead_links(page) == ["gone.md", "page.md#gone"]
    page.write_text("`utils/models/losses.py` `losses.py` `utils/gone.py` `gone.py` `CUB/data` `train.py`")
    assert missing_files(page) == ["utils/gone.py", "gone.py"]


# --- on stand-ins


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """A folder with what the documents' commands read, all of it small: data sets, weights, pictures."""
    home = tmp_path_factory.mktemp("documents")
    for name, make in MAKE.items():
        make(home / name / "data", NOISE, 5)
        write_random_net(home / name / "net.pth.tar", 5, dataset=name)
    pictures = ["holiday/a.jpg", "more/b.jpg", "Pictures/c.jpg", "bird.jpg"]
    pictures += [
        f"{kind}s/{split}/{name}.jpg" for kind in ("cat", "dog") for split in ("train", "test") for name in "ab"
    ]
    for seed, name in enumerate(pictures):
        save_noise(home / name, seed)
    Image.new("RGB", (200, 240), "teal").save(home / "cats" / "test" / "tom.jpg")  # its box is in the document
    yield home
    shutil.rmtree(home)


@pytest.fixture
def home(stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-ins in a folder of the test's own, the user's home."""
    for path in stand_ins.iterdir():
        (tmp_path / path.name).symlink_to(path)
    for name in DATASETS:  # commands write into them
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
        for path in (stand_ins / name).iterdir():
            (tmp_path / name / path.name).symlink_to(path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_small(program: Program, home: Path) -> int:
    """Runs a training or an evaluation as it stands, but small, and on a stand-in where it reads what is not here."""
    arguments = [str(Path(word).expanduser()) if word.startswith("~") else word for word in program.arguments]
    is_own = "--dataset-dir" in arguments
    if program.name == "train.py":
        dataset = parse(parser_of(program.name), arguments).dataset or "CUB"
        arguments += ["--arch", "mobilenet", "--epochs", "1", "--batch_size", "4", "--device", "cpu"]
        arguments += [*SIZES, *SMALL_HEADS]
        place = ["--root", f"{home}/{dataset}/data", "--save_path", f"{home}/runs/{dataset}"]
        return start(program.name, *arguments, *([] if is_own else place))
    folder = home / Path(program.name).parent
    arguments += ["--arch", "mobilenet", "--device", "cpu", "--num_workers", "0"]
    arguments += [] if is_own else ["--checkpoint", f"{folder}/net.pth.tar"]
    arguments += [] if is_own or "--images" in arguments else ["--data", f"{folder}/data"]
    return start(program.name, *arguments)


@pytest.mark.parametrize("path", WITH_SHELL, ids=name_of)
def test_commands_run(path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Protects who copies a block: its trainings and evaluations end well, one after the other.

    The demo is run by `.ci/run`, several processes by test_distributed_training.py and test_sharded_evaluation.py.
    """
    for block in blocks(path.read_text(encoding="utf-8"), "sh"):
        for line in block.splitlines():
            if line.split(" ")[0] in FILE_TOOLS:
                subprocess.run(["bash", "-c", line], cwd=home, check=True)
        for command in commands(block):
            program = None if command.words[0] == "torchrun" else program_of(command)
            if program is None or program.name not in SCRIPTS or TOO_LARGE & set(program.arguments):
                continue
            if OTHER_DATASETS & set(program.arguments):  # trained in test_datasets.py
                continue
            monkeypatch.chdir(home / command.folder.relative_to(ROOT))
            code = run_small(program, home)
            assert code == 0, f"{' '.join(command.words)}: {capsys.readouterr().err}"


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Weights of the released file's shapes."""
    path = tmp_path_factory.mktemp("released") / "resnet99.pth.tar"
    torch.save(CUB.Model.build("resnet").state_dict(), path)
    yield path
    path.unlink()


@pytest.mark.parametrize("path", [path for path in WITH_PYTHON if path != ARRAYS_TO_SCORES], ids=name_of)
def test_python_runs(path: Path, home: Path, released: Path) -> None:
    """Protects who copies a block of Python: run in order, from the repository's folder, each works."""
    weights = Path("CUB/logs/resnet/resnet99.pth.tar")
    weights.parent.mkdir(parents=True)
    weights.symlink_to(released)
    names = {
        "images": torch.rand(2, 3, 224, 224),
        "labels": torch.tensor([0, 7]),
    }
    found = run_python(path, names)
    width, height = Image.open("bird.jpg").size
    if "heat" in found:
        assert found["heat"].shape == (height, width) and len(found["finding"].box) == 4
    if "losses" in found:
        assert all(parameter.grad is not None for parameter in found["model"].parameters())
        assert found["box"].shape == (4,) and (found["box"] >= 0).all() and (found["box"] <= 224).all()
    assert {"heat", "losses"} & found.keys(), f"nothing of {path} is looked at"


# --- tables that repeat code


def cells(*values: object) -> str:
    return "| " + " | ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values) + " |\n"


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("dataset", DATASETS)
def test_tables_of_recipes_and_checkpoints(dataset: str, arch: str) -> None:
    """Protects the data sets' pages: each recipe of both papers, and the names of the released weights."""
    text, models = (ROOT / dataset / "README.md").read_text(encoding="utf-8"), DATASETS[dataset].Model
    for paper in ("cvpr", "ijcv"):
        recipe = models.recipe(arch, paper)
        losses = recipe.frg_weight, recipe.area_weight, recipe.threshold, recipe.top_k
        beyond_one = {"zero": 0, "one": 1}[recipe.ratio_beyond_one]
        schedule = recipe.epochs, " and ".join(map(str, recipe.lr_steps)), recipe.batch_size
        assert cells(paper.upper(), arch, *losses, beyond_one, *schedule) in text
        assert f"the seed is {recipe.seed}" in text
    assert (
        f"| {arch} | [`{train.DATASETS[dataset].weights_name(arch, models.recipe(arch).epochs - 1)}`](https://drive"
        in text
    )


def test_table_of_the_second_papers_recipes() -> None:
    """Protects the page of the other data sets: every recipe has a row, and every row is one."""
    text = (ROOT / "utils" / "datasets" / "README.md").read_text(encoding="utf-8")
    found = {}
    for row in re.findall(r"^\| (\w+) \| ([a-z, ]+) \| (\d.*) \|$", text, re.MULTILINE):
        for arch in row[1].split(", "):
            assert found.setdefault((row[0], arch), row[2]) == row[2]
    expected = {}
    for name, dataset in train.DATASETS.items():
        for arch in dataset.archs if name not in DATASETS and not dataset.segments else ():
            recipe = dataset.recipe(arch)
            beyond_one = {"zero": 0, "one": 1}[recipe.ratio_beyond_one]
            losses = recipe.frg_weight, recipe.area_weight, recipe.threshold, recipe.top_k, beyond_one
            schedule = recipe.epochs, " and ".join(map(str, recipe.lr_steps)), recipe.batch_size
            expected[name, arch] = cells(*losses, *schedule).strip("| \n")
    assert found == expected


def test_second_papers_released_files() -> None:
    """Protects the tables of released files: figure and link of each of the nine."""
    for name, page in (("CUB", "CUB"), ("ILSVRC", "ILSVRC"), ("OpenImages", "utils/datasets")):
        text, dataset = (ROOT / page / "README.md").read_text(encoding="utf-8"), train.DATASETS[name]
        for arch in dataset.archs:
            if (released := dataset.released(arch, "ijcv")) is not None:
                assert f"[`{released.path.name}`]({released.page})" in text
                figures = [f"{value:.2f}" for value in vars(dataset.published(arch, "ijcv")).values()]
                assert " / ".join(figures) in text or " | ".join(figures) in text


def test_table_of_published_results() -> None:
    """Protects the first page: every published figure of BAS and of CAM."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for arch, title in zip(ARCHS, ("VGG16", "MobileNetV1", "ResNet50", "InceptionV3"), strict=True):
        figures = [
            " / ".join(f"{value:.2f}" for value in (found.top1_loc, found.top5_loc, found.gt_known_loc))
            for package in DATASETS.values()
            for found in (package.Model.published(arch), package.Model.published_cam(arch))
        ]
        assert cells(title, *figures) in text


@pytest.mark.parametrize("dataset", DATASETS)
def test_tables_of_layouts(dataset: str) -> None:
    """Protects the tables of layouts: they name every list of a data set that its reader names."""
    source = inspect.getsource(DATASETS[dataset].DataLoader)
    pieces = set(re.findall(r"\b\w+\.(?:txt|csv)\b", source)) - {"class_names.txt"}  # that one is ours
    assert len(pieces) >= 4
    for page in (ROOT / "README.md", ROOT / dataset / "README.md"):
        text = page.read_text(encoding="utf-8")
        assert not [piece for piece in pieces if f"`{piece}`" not in text], page


def test_first_page_repeats_the_measured_figures() -> None:
    """Protects the sentence of figures on the first page: each stands in the tables that it links to."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"\*\*Measured here\*\*,(.*?)\[Tables", text, re.DOTALL)
    figures = re.findall(r"\d+\.\d", sentence)
    birds, demo = (ROOT / "Img" / "README.md").read_text(encoding="utf-8").split("### The demo")
    for table, expected in ((birds.split("**With fewer classes still**")[0], figures[:3]), (demo, figures[3:])):
        rows = [row for row in table.splitlines() if re.match(r"\| (BAS|CAM|centred)", row)]
        assert [row.split(" | ")[3].split(" ± ")[0] for row in rows] == expected and len(expected) == 3


# --- requirements, constraints, licence


def test_constraints_are_allowed() -> None:
    """Protects the versions that made the figures: `requirements.txt` names and allows each."""

    def entries(path: str, sign: str) -> dict[str, list[int]]:
        text = (ROOT / path).read_text(encoding="utf-8")
        found = re.findall(rf"^([\w-]+){sign}([\d.]+)", text, re.MULTILINE)
        return {name: [int(part) for part in version.split(".")] for name, version in found}

    lowest, made = entries("requirements.txt", ">="), entries(".github/constraints.txt", "==")
    assert made.keys() == lowest.keys() - {"pytest", "pytest-xdist", "ruff", "mypy"}
    assert all(made[name] >= lowest[name] for name in made)


def test_licence_names_what_is_there() -> None:
    """Protects others' works: the paths that the licence leaves out exist, and all weights are among them."""
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    paths = re.findall(r"(?:utils|Img)/[\w./]*\w/?", text)
    assert len(paths) >= 7 and all((ROOT / path).exists() for path in paths)
    weights = [name_of(path) for path in (ROOT / "utils").rglob("*.pth")]
    assert weights and set(weights) <= set(paths)
