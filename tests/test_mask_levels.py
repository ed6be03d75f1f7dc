"""Protects what masks are taken to mean: each way to save them is read right, or refused in one sentence."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from tests.commands import assert_one_sentence, run_inference, save_noise, write_random_net
from tests.test_masks import save_mask
from utils.data.mask_levels import IGNORE, OBJECT, SAMPLE, MaskError, understand

# Of 24 x 32 pixels, with a rim of two pixels around the object.
OBJECTS = np.zeros((24, 32), dtype=bool)
OBJECTS[6:18, 8:26] = True
RIM = np.zeros_like(OBJECTS)
RIM[4:20, 6:28] = True
RIM &= ~OBJECTS
PLAIN = OBJECTS.astype(np.uint8) * OBJECT
IGNORED = PLAIN + RIM.astype(np.uint8) * IGNORE


def levels(objects: int, rim: int = 0, background: int = 0, dtype: type = np.uint8) -> np.ndarray:
    """(24, 32) numbers."""
    return np.select([OBJECTS, RIM], [objects, rim], background).astype(dtype)


def voc_palette() -> list[int]:
    """PASCAL VOC's colours: the bits of a number, spread over red, green and blue."""
    bits = np.array(
        [[[number >> (3 * place + band) & 1 for place in range(3)] for band in range(3)] for number in range(256)]
    )
    return (bits @ (128, 64, 32)).ravel().tolist()


def indexed(numbers: np.ndarray, palette: list[int]) -> Image.Image:
    image = Image.fromarray(numbers, "L").convert("L")
    image.putpalette(palette)
    return image


def layered(colour: np.ndarray, alpha: np.ndarray) -> Image.Image:
    """RGBA of (24, 32) or (24, 32, 3) colours and (24, 32) alpha."""
    colours = colour if colour.ndim == 3 else np.dstack([colour] * 3)
    return Image.fromarray(np.dstack([colours, alpha]).astype(np.uint8))


def soft() -> np.ndarray:
    """A mask with one blurred edge, as resizing leaves them."""
    mask = levels(255)
    mask[18, 8:26] = np.linspace(20, 120, 18)
    return mask


NOISE = np.random.RandomState(0).randint(0, 256, (24, 32, 3), np.uint8)
HALVES = np.where(np.arange(32) < 16, 1, 2).astype(np.uint8)
# What is saved for the files of a data set, what is to be read from each, and what is said of it.
GOOD = {
    "0 and 255": ([levels(255)], PLAIN, "0 background, 255 object"),
    "1 bit": ([Image.fromarray(OBJECTS)], PLAIN, "0 background, 255 object"),
    "0 and 1": ([levels(1)], PLAIN, "0 background, 1 object"),
    "255 to ignore": ([levels(1, 255)], IGNORED, "0 background, 1 object, 255 ignored"),
    "instances": ([levels(1) * HALVES], PLAIN, "0 background, 1 to 50 object"),
    "VOC": (
        [indexed(levels(number, 255), voc_palette()) for number in (7, 15)],
        IGNORED,
        "0 background, 1 to 50 object, 255 ignored",
    ),
    "16 bits, white": ([levels(65535, dtype=np.uint16)], PLAIN, "0 background, 255 object"),
    "16 bits, one": ([levels(1, 65535, dtype=np.uint16)], IGNORED, "0 background, 1 object, 255 ignored"),
    "16 bits, number": ([levels(1000, dtype=np.uint16)], PLAIN, "0 background, 1000 object"),
    "half grey": ([levels(100)], PLAIN, "0 background, 100 object"),
    "a colour": ([np.dstack([levels(200), levels(0), levels(0)])], PLAIN, "0 background, #c80000 object"),
    "palette with the object first": (
        [indexed(1 - levels(1), [0, 200, 0, 0, 0, 0])],
        PLAIN,
        "0 background, #00c800 object",
    ),
    "grey palette": ([indexed(levels(1), [0, 0, 0, 255, 255, 255])], PLAIN, "0 background, 255 object"),
    "shares of annotators": (
        [levels(255, 102), levels(153, 51), levels(204)],
        PLAIN,
        "0 to 127 background, 128 to 255 object",
    ),
    "blurred edges": ([soft()], PLAIN, "0 to 127 background, 128 to 255 object"),
    "black with alpha": ([layered(levels(0), levels(255))], PLAIN, "0 background, 255 object in the alpha channel"),
    "cut-out": ([layered(NOISE, levels(255))], PLAIN, "0 background, 255 object in the alpha channel"),
    "white with the same alpha": ([layered(levels(255), levels(255))], PLAIN, "0 background, 255 object"),
    "floats": ([Image.fromarray(levels(1, dtype=np.float32))], PLAIN, "0 background, 1 object"),
}
BAD = {
    "trimap": ([levels(255, 128)], "0, 128, 255"),
    "trimap of Oxford's pets": ([levels(1, 3, 2)], "1, 2, 3"),
    "VOC in colours": ([indexed(levels(7, 255), voc_palette()).convert("RGB")], "0, #808080, #e0e0c0"),
    "grey levels of instances": ([levels(100, 200)], "0, 100, 200"),
    "less than half of the annotators": ([levels(102, 51)], "0, 51, 102"),
    "numbers beyond 8 bits": ([levels(1000, dtype=np.uint16), levels(1001, dtype=np.uint16)], "0, 1000, 1001"),
    "some with 1, others with 255": ([levels(1), levels(255)], "0, 1, 255"),
    "a photograph": ([NOISE], "more than 256 in a file"),
    "a grey photograph": ([NOISE[..., 0]], "0, 1, 2, 3"),
    "alpha against colour": ([layered(255 - levels(255), levels(255))], "one object in its colours and another one in"),
    "alpha of many levels": ([layered(levels(9, 9, 9), NOISE[..., 0])], "cannot be told"),
}


def save(folder, files, suffix=".png"):
    paths = [folder / f"{index}{suffix}" for index in range(len(files))]
    for path, content in zip(paths, files, strict=True):
        (content if isinstance(content, Image.Image) else Image.fromarray(content)).save(path)
    return paths


@pytest.mark.parametrize("name", GOOD)
def test_each_way_to_save_masks(tmp_path, name):
    """What is object, background and ignored is what was meant, and is said."""
    files, expected, said = GOOD[name]
    paths = save(tmp_path, files, ".tif" if name == "floats" else ".png")
    meaning = understand(paths)
    assert str(meaning) == said
    for path in paths:
        assert (meaning.read(path) == expected).all()
    assert understand(paths[::-1]) == meaning


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_told_is_refused(tmp_path, name):
    """Levels that people use for different things are named, with a file and what to do; nothing is scored wrongly."""
    files, words = BAD[name]
    with pytest.raises(MaskError, match=rf"{re.escape(words)}.*save all masks with 0 for the background") as caught:
        understand(save(tmp_path, files))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("odd", [levels(7), NOISE, NOISE[..., 0], np.full((9, 9), 7, np.uint8)])
def test_the_one_that_is_odd_is_named(tmp_path, odd):
    """Protects from a search among thousands: named is the file with the levels that hardly another has."""
    paths = save(tmp_path, [levels(255), levels(255), odd, levels(255)])
    with pytest.raises(MaskError, match="cannot be told") as caught:
        understand(paths)
    assert str(paths[2]) in str(caught.value)


def test_fractions_and_several_pictures_in_a_file(tmp_path):
    """Probabilities and a page for each instance, of which the first alone would be read, are refused by name."""
    Image.fromarray(levels(1) * np.float32(0.7)).save(tmp_path / "f.tif")
    pages = [Image.fromarray(levels(255)), Image.fromarray(levels(0, 255))]
    pages[0].save(tmp_path / "p.tif", save_all=True, append_images=pages[1:])
    for name, words in (("f.tif", "its levels are fractions"), ("p.tif", "it holds 2 pictures where one is expected")):
        with pytest.raises(MaskError, match=rf"cannot read the mask .*{name}: {words}"):
            understand([]).read(tmp_path / name)


def test_alpha_that_one_file_lacks(tmp_path):
    """A mask without the channel that holds the others' objects is told, not taken for an empty one."""
    good, bad = save(tmp_path, [layered(levels(0), levels(255)), levels(255)])
    with pytest.raises(MaskError, match=rf"{bad} has no alpha channel, where others hold 0 background, 255 object in"):
        understand([good]).read(bad)


def test_many_files_are_sampled(tmp_path):
    """An evaluation of thousands of masks begins soon, and a strange one beyond the sample is told when it is read."""
    paths = [save_mask(tmp_path / f"{index:04}.png", levels(1)) for index in range(SAMPLE + 50)]
    read = []

    def count(path):
        read.append(path)
        return original(path)

    original, module = understand.__globals__["read_levels"], understand.__globals__
    module["read_levels"] = count
    try:
        meaning = understand(paths)
    finally:
        module["read_levels"] = original
    assert len(read) == SAMPLE and {paths[0], paths[-1]} < set(read)
    beyond = next(path for path in paths if path not in read)
    save_mask(beyond, levels(2))
    with pytest.raises(MaskError, match=rf"{beyond} holds 2, where others hold 0 background, 1 object"):
        meaning.read(beyond)


def test_exchanged_files_are_understood_anew(tmp_path):
    """In one process, as in a notebook, corrected masks are not read by what the old ones meant."""
    path = save_mask(tmp_path / "m.png", levels(1))
    assert str(understand([path])) == "0 background, 1 object"
    path.unlink()
    save_mask(path, levels(255))
    assert str(understand([path])) == "0 background, 255 object"


# --- as a user meets it


@pytest.fixture
def data(tmp_path):
    """Class folders with six pictures of noise, and boxes."""
    for index in range(6):
        save_noise(tmp_path / "data" / "test" / "ab"[index % 2] / f"{index}.png", index)
    rows = [f"test/{'ab'[index % 2]}/{index}.png,8,8,40,40" for index in range(6)]
    (tmp_path / "data" / "boxes.csv").write_text("\n".join(["id,x0,y0,x1,y1", *rows]))
    write_random_net(tmp_path / "mobilenet0.pth.tar", 2)
    return tmp_path / "data"


def evaluate(data, masks, capsys):
    for index, mask in enumerate(masks):
        save_mask(data / "masks" / "test" / "ab"[index % 2] / f"{index}.png", mask)
    options = ["--arch", "mobilenet", "--checkpoint", data.parent / "mobilenet0.pth.tar", "--map", "center"]
    code = run_inference("CUB", *options, "--dataset-dir", data, "--num_workers", 0)
    return code, *capsys.readouterr()


def test_command_says_what_it_understood(data, capsys):
    """Protects PxAP: masks of 0 and 1 give the figure of the same masks of 0 and 255, and a line says how they were
    read; twice the size changes nothing."""
    objects = np.zeros((64, 64), dtype=np.uint8)
    objects[16:48, 20:60] = 1
    found = {}
    for name, mask in {"255": objects * 255, "1": objects, "twice": objects.repeat(2, 0).repeat(2, 1)}.items():
        code, out, err = evaluate(data, [mask] * 6, capsys)
        assert (code, err) == (0, "")
        assert f"masks: 0 background, {mask.max()} object (by the levels of all 6 files)\n" in out
        found[name] = next(line for line in out.splitlines() if line.startswith("PxAP"))
    assert found["255"] == found["1"] == found["twice"] and "over 6 masks" in found["1"]


def test_command_refuses_what_is_not_sure(data, capsys):
    """Protects PxAP: of levels with two meanings nothing is scored; the sentence comes before the evaluation."""
    trimap = np.zeros((64, 64), dtype=np.uint8)
    trimap[16:48], trimap[20:40] = 128, 255
    code, out, err = evaluate(data, [trimap] * 6, capsys)
    assert code == 1 and "PxAP" not in out
    assert_one_sentence(err, "what the masks mean cannot be told from their levels, 0, 128, 255", "move the masks away")


def test_command_says_why_there_is_no_figure(data, capsys):
    """Protects the reader who was promised masks for all pictures: none with an object, or none fit to use, is said."""
    code, out, _ = evaluate(data, [np.zeros((64, 64))] * 6, capsys)
    assert code == 0 and "no PxAP: no mask that could be read marks an object inside the crop" in out
    code, out, _ = evaluate(data, [np.ones((64, 20))] * 6, capsys)
    assert code == 0 and "no PxAP: no mask" in out and "6 masks are left out" in out
