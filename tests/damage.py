"""Ways in which files are bad: each is a name and a function that puts a bad file in a good one's place."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import re
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from utils.system.files import is_sealed, seal

Damage = Callable[[Path], object]
HUGE = "9" * 400


def _replaced(make: Damage) -> Damage:
    """What lies there goes first: it may be a link to a file that other cases need."""

    def damage(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return damage


def rewritten(change: Callable[[bytes], bytes]) -> Damage:
    """A file with other bytes."""

    def damage(path: Path) -> None:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(change(content))

    return damage


def _random_bytes(count: int) -> bytes:
    return np.random.default_rng(0).bytes(count)


def _flip(content: bytes, place: float) -> bytes:
    index = min(int(place * len(content)), len(content) - 1)
    return content[:index] + bytes([content[index] ^ 0x10]) + content[index + 1 :]


def _lock(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    path.chmod(0)


# What a path may lead to instead of the file that is wanted there.
NO_FILE: dict[str, Damage] = {
    "missing": _replaced(lambda path: None),
    "empty": _replaced(Path.touch),
    "a folder": _replaced(Path.mkdir),
    "a FIFO": _replaced(os.mkfifo),
    "a device": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "a loop of links": _replaced(lambda path: path.symlink_to(path.name)),
    "no permission": _lock,
    "random bytes": _replaced(lambda path: path.write_bytes(_random_bytes(3000))),
    "cut in half": rewritten(lambda content: content[: len(content) // 2]),
}
BITS: dict[str, Damage] = {
    f"a bit flipped at {round(100 * place)} %": rewritten(partial(_flip, place=place)) for place in (0, 0.02, 0.5, 0.98)
}


def _lines(change: Callable[[list[bytes]], list[bytes]]) -> Damage:
    return rewritten(lambda content: b"\n".join([*change(content.splitlines()), b""]))


def _numbers(text: str) -> Damage:
    """The last number of the second line, or of the only one, which no heading is."""

    def change(lines: list[bytes]) -> list[bytes]:
        index = min(1, len(lines) - 1)
        return [*lines[:index], re.sub(rb"-?\d[\d.]*(?=\D*$)", text.encode(), lines[index]), *lines[index + 1 :]]

    return _lines(change)


TEXT: dict[str, Damage] = {
    "a byte order mark": rewritten(lambda content: b"\xef\xbb\xbf" + content),
    "Windows' line ends": rewritten(lambda content: content.replace(b"\n", b"\r\n")),
    "no last line end": rewritten(lambda content: content.rstrip(b"\n")),
    "Latin-1": rewritten(lambda content: content[:-1] + b"\xe4\n"),
    "UTF-16": rewritten(lambda content: content.decode().encode("utf-16")),
    "NUL": rewritten(lambda content: content[:-1] + b"\0\n"),
    "a line of a megabyte": rewritten(lambda content: content + b"n/" * 500_000),
    "nested": rewritten(lambda content: b"<a>" * 100_000),
    "another file's lines": rewritten(lambda content: b"these are\nnotes of mine\n"),
    "blank lines": rewritten(lambda content: content.replace(b"\n", b"\n\n")),
    "lines twice": _lines(lambda lines: [*lines, *lines]),
    "a line twice": _lines(lambda lines: [*lines, lines[-1]]),
    "a line too few": _lines(lambda lines: lines[:-1]),
    "no first line": _lines(lambda lines: lines[1:]),
    "lines cut short": _lines(lambda lines: [line[: len(line) // 2] for line in lines]),
    "the last line cut short": rewritten(lambda content: content[:-4]),
    "a field too many": _lines(lambda lines: [*lines[:-1], lines[-1] + b" 1,1;1"]),
    **{
        f"the number {text[:20]}": _numbers(text) for text in ("-1", "1e20", "nan", "inf", "x", "", "1e-400", "0", HUGE)
    },
}
XML: dict[str, Damage] = {
    "no object": rewritten(lambda content: re.sub(rb"(?s)<object>.*</object>", b"", content)),
    "an object without a box": rewritten(lambda content: re.sub(rb"(?s)<bndbox>.*?</bndbox>", b"", content)),
    "a box without a side": rewritten(lambda content: re.sub(rb"<xmin>.*?</xmin>", b"", content)),
    "a side that is a word": rewritten(lambda content: re.sub(rb"<xmin>.*?</xmin>", b"<xmin>x</xmin>", content)),
    "sides exchanged": rewritten(
        lambda content: content.replace(b"xmin", b"?").replace(b"xmax", b"xmin").replace(b"?", b"xmax")
    ),
    "entities that grow": rewritten(
        lambda content: (
            b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
            + b"".join(b'<!ENTITY a%d "%s">' % (n, (b"&a%d;" % (n - 1) if n else b"&a;") * 10) for n in range(9))
            + b"]><annotation>&a8;</annotation>"
        )
    ),
    "an entity from outside": rewritten(
        lambda content: b'<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>'
    ),
}

_JSON: dict[str, bytes] = {
    "null": b"null",
    "a list": b"[]",
    "an object": b"{}",
    "a word": b'"x"',
    "a number": b"3",
    "a list of numbers": b"[1, 2]",
    "a list of objects": b"[{}]",
    "nested": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "NaN": b"NaN",
    "a number that is too large": b"1e999",
    "a number of 400 digits": HUGE.encode(),
    "a byte order mark alone": b"\xef\xbb\xbf",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
}
JSON: dict[str, Damage] = {
    **{f"JSON: {name}": rewritten(lambda _, content=content: content) for name, content in _JSON.items()},
    "NUL": TEXT["NUL"],
    "a byte order mark": TEXT["a byte order mark"],
    "cut by a byte": rewritten(lambda content: content.rstrip()[:-1]),
    "twice": rewritten(lambda content: content + content),
}
EACH = 1  # of the values below, for each place in turn
_LEAVES = {"null": None, "a word": "x", "-1": -1, "a list": [[]], "400 digits": int(HUGE), "NaN": float("nan")}


def places_of(content: Any, before: tuple = ()) -> Iterator[tuple]:
    """Where a value may be exchanged in nested dicts and lists, of which the first element stands for all."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content[:1]):
        yield (*before, key)
        if isinstance(value, dict | list):
            yield from places_of(value, (*before, key))


def put(content: Any, place: tuple, value: Any) -> None:
    """Exchanges the value at a place of :func:`places_of`."""
    for key in place[:-1]:
        content = content[key]
    content[place[-1]] = value


def json_damages(path: Path, depth: int) -> Iterator[tuple[str, Damage]]:
    """Each value of a JSON file, or of the first line of a JSONL file, down to a depth, in turn exchanged or taken
    out."""

    def exchange(text: bytes, place: tuple, value: Any) -> bytes:
        first, _, rest = text.partition(b"\n") if path.suffix == ".jsonl" else (text, b"", b"")
        content = json.loads(first)
        put(content, place, value)
        return json.dumps(content).encode() + b"\n" + rest

    def drop(text: bytes, place: tuple) -> bytes:
        mark = "to be taken out"
        content = json.loads(exchange(text, place, mark).partition(b"\n")[0])
        parent = content
        for key in place[:-1]:
            parent = parent[key]
        del parent[place[-1]]
        return json.dumps(content).encode() + b"\n"

    text, turn = path.read_text(), itertools.cycle(_LEAVES.items())
    for place in places_of(json.loads(text.partition("\n")[0] if path.suffix == ".jsonl" else text)):
        if len(place) > depth:
            continue
        name = ".".join(map(str, place))
        for what, value in itertools.islice(turn, EACH):
            yield f"{name} is {what}", rewritten(partial(exchange, place=place, value=value))
        if path.suffix != ".jsonl":
            yield f"{name} is missing", rewritten(partial(drop, place=place))


# --- pictures


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_of_size(width: int, height: int) -> bytes:
    header = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _png_chunk(b"IDAT", zlib.compress(b"\0" * 100)) + _png_chunk(b"IEND", b"")


def _drawn(kind: str, image: Image.Image, **options: Any) -> Damage:
    def make(path: Path) -> None:
        buffer = io.BytesIO()
        image.save(buffer, format=kind, **options)
        path.write_bytes(buffer.getvalue())

    return _replaced(make)


def _noise(shape: tuple[int, ...], top: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, top, shape).astype(dtype)


_RGB = Image.fromarray(_noise((64, 64, 3)))
_FRAMES = [Image.fromarray(_noise((64, 64, 3))) for _ in range(3)]
BAD_PICTURES: dict[str, Damage] = {
    "text": _replaced(lambda path: path.write_text("no picture\n")),
    "HTML of a server's error": _replaced(lambda path: path.write_text("<!DOCTYPE html><h1>404</h1>")),
    "a Git LFS pointer": _replaced(lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n")),
    "EPS": _replaced(lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")),
    "a PNG without pixels": _replaced(lambda path: path.write_bytes(_png_of_size(64, 64))),
    "a PNG of 0 pixels": _replaced(lambda path: path.write_bytes(_png_of_size(0, 0))),
    "a PNG that claims 60000 x 60000": _replaced(lambda path: path.write_bytes(_png_of_size(60000, 60000))),
    "a PNG that claims 2**31 pixels": _replaced(lambda path: path.write_bytes(_png_of_size(2**31 - 1, 1))),
    "a PNG header alone": _replaced(lambda path: path.write_bytes(_png_of_size(64, 64)[:33])),
    "a JPEG cut short": lambda path: (_drawn("JPEG", _RGB)(path), NO_FILE["cut in half"](path)),
    "a WebP cut short": lambda path: (_drawn("WEBP", _RGB)(path), NO_FILE["cut in half"](path)),
    "floating-point TIFF": _drawn("TIFF", Image.fromarray(_noise((64, 64), dtype=np.float32))),
    "32 bits": _drawn("TIFF", Image.fromarray(_noise((64, 64), 1 << 30, np.int32))),
    "12 bits in 16": _drawn("PNG", Image.fromarray(_noise((64, 64), 4096, np.uint16))),
}
ODD_PICTURES: dict[str, Damage] = {
    "1 pixel": _drawn("PNG", Image.new("RGB", (1, 1))),
    "1 x 3000": _drawn("PNG", Image.new("RGB", (1, 3000))),
    "CMYK": _drawn("JPEG", _RGB.convert("CMYK")),
    "palette": _drawn("PNG", _RGB.convert("P")),
    "1 bit": _drawn("PNG", _RGB.convert("1")),
    "grey and alpha": _drawn("PNG", _RGB.convert("LA")),
    "transparent": _drawn("PNG", _RGB.convert("RGBA")),
    "16 bits": _drawn("PNG", Image.fromarray(_noise((64, 64), 65536, np.uint16))),
    "several frames": _drawn("GIF", _FRAMES[0], save_all=True, append_images=_FRAMES[1:]),
    "damaged EXIF": _drawn("JPEG", _RGB, exif=b"Exif\0\0" + b"\xff" * 50),
}
MASKS: dict[str, Damage] = {
    "three levels": _drawn("PNG", Image.fromarray(np.tile(np.uint8([[0, 90, 200]]), (64, 32))[:, :64])),
    "noise": _drawn("PNG", Image.fromarray(_noise((64, 64)))),
    "coloured noise": _drawn("PNG", _RGB),
    "another aspect ratio": _drawn("PNG", Image.new("L", (64, 20), 255)),
    "one level": _drawn("PNG", Image.new("L", (64, 64), 7)),
    "several frames": ODD_PICTURES["several frames"],
    "floating-point TIFF": BAD_PICTURES["floating-point TIFF"],
}


# --- what torch and numpy save


class Foreign:
    """An object that no reader of tensors makes."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("a file's code has run",)


def torch_file(change: Callable[[Any], Any]) -> Damage:
    """A file of torch.save with another content; sealed if it was."""

    def damage(path: Path) -> None:
        content, is_state = torch.load(path, weights_only=False), is_sealed(path)
        path.unlink()
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(50_000)  # for what is nested
        try:
            torch.save(change(content), path)
        finally:
            sys.setrecursionlimit(before)
        if is_state:
            seal(path)

    return damage


def _with(changes: dict) -> Callable[[dict], dict]:
    return lambda content: {**content, **changes}


def _first(change: Callable[[torch.Tensor], Any]) -> Callable[[dict], dict]:
    """Another first tensor of floats."""

    def changed(content: dict) -> dict:
        key = next(key for key, value in content.items() if torch.is_tensor(value) and value.is_floating_point())
        return {**content, key: change(content[key])}

    return changed


def _all(change: Callable[[str, Any], tuple[str, Any]]) -> Callable[[dict], dict]:
    return lambda content: dict(change(key, value) for key, value in content.items())


def _spoil(tensor: torch.Tensor, value: float) -> torch.Tensor:
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    tensor.view(-1)[0] = value
    return tensor


_CONTENTS: dict[str, Callable[[Any], Any]] = {
    "a Namespace beside": lambda content: {"state_dict": content, "args": argparse.Namespace(lr=1)},
    "a whole model": lambda content: torch.nn.Linear(2, 2),
    "code": lambda content: {**content, "more": Foreign()},
    "None": lambda content: None,
    "a number": lambda content: 3,
    "a list": lambda content: [*content.values()],
    "a tensor": lambda content: torch.zeros(3),
    "no entries": lambda content: {},
    "numbers as keys": lambda content: dict(enumerate(content.values())),
    "two sets of weights": lambda content: {"model": content, "ema": content},
    "another network": lambda content: torch.nn.Linear(2, 2).state_dict(),
    "an entry too few": lambda content: dict([*content.items()][1:]),
    "an entry too many": _with({"more.weight": torch.zeros(3)}),
    "nested deeply": lambda content: _nest(content, 2000),
}
_ENTRIES: dict[str, Callable[[dict], dict]] = {
    "strings as values": _all(lambda key, value: (key, "x")),
    "renamed": _all(lambda key, value: (f"backbone.{key}", value)),
    "another shape": _first(lambda tensor: tensor[:1]),
    "NaN": _first(lambda tensor: _spoil(tensor, float("nan"))),
    "infinite": _first(lambda tensor: _spoil(tensor, float("inf"))),
    "all NaN": _all(lambda key, value: (key, value * float("nan") if value.is_floating_point() else value)),
    "complex": _first(lambda tensor: tensor.to(torch.complex64)),
    "sparse": _first(lambda tensor: tensor.to_sparse()),
    "meta": _first(lambda tensor: tensor.to("meta")),
    "integers": _first(lambda tensor: tensor.to(torch.int64)),
    "float8": _first(lambda tensor: tensor.to(torch.float8_e4m3fn)),
    "quantised": _first(lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)),
    "of 2**40 numbers": _first(lambda tensor: torch.zeros(1).expand(2**40)),
}
WEIGHTS = {name: torch_file(change) for name, change in (_CONTENTS | _ENTRIES).items()}
STATES = {name: torch_file(change) for name, change in _CONTENTS.items()} | {
    f"its model: {name}": torch_file(lambda content, change=change: {**content, "model": change(content["model"])})
    for name, change in (_CONTENTS | _ENTRIES).items()
}


def _nest(content: Any, depth: int) -> Any:
    for _ in range(depth):
        content = [content]
    return content


_STATE_VALUES = {"None": None, "a word": "x", "-1": -1, "a list": [[]], "10**30": 10**30, "NaN": float("nan")}


def state_damages(path: Path) -> Iterator[tuple[str, Damage]]:
    """Each part of a training state in turn exchanged or taken out; of many tensors the first one."""

    def exchange(content: dict, place: tuple, value: Any) -> dict:
        put(content, place, value)
        return content

    def drop(content: dict, place: tuple) -> dict:
        parent = content
        for key in place[:-1]:
            parent = parent[key]
        del parent[place[-1]]
        return content

    content, turn = torch.load(path, weights_only=False, mmap=True), itertools.cycle(_STATE_VALUES.items())
    many = {
        ("model",): next(iter(content["model"])),
        ("optimizer", "state"): next(iter(content["optimizer"]["state"])),
        ("optimizer", "param_groups", 0, "params"): 0,
    }
    for place in places_of(content):
        if any(
            place[: len(of)] == of and place[len(of) : len(of) + 1] not in ((), (first,)) for of, first in many.items()
        ):
            continue
        name = ".".join(map(str, place))
        for what, bad in itertools.islice(turn, EACH):
            yield f"{name} is {what}", torch_file(partial(exchange, place=place, value=bad))
        yield f"{name} is missing", torch_file(partial(drop, place=place))


def _npy(array: np.ndarray) -> Damage:
    def make(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, array, allow_pickle=True)

    return _replaced(make)


def _npy_header(shape: str) -> Damage:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    return _replaced(lambda path: path.write_bytes(content))


MAPS: dict[str, Damage] = {
    "objects": _npy(np.array([[Foreign()]], dtype=object)),
    "one dimension": _npy(np.zeros(5)),
    "three dimensions": _npy(np.zeros((2, 3, 4))),
    "no number": _npy(np.zeros((0, 0))),
    "strings": _npy(np.array([["a"]])),
    "complex": _npy(np.ones((3, 3), complex)),
    "NaN": _npy(np.full((3, 3), np.nan)),
    "infinite": _npy(np.full((3, 3), np.inf)),
    "a scalar": _npy(np.array(3.0)),
    "dates": _npy(np.array([["2020-01-01"]], dtype="datetime64[D]")),
    "records": _npy(np.zeros((2, 2), dtype=[("a", "f4")])),
    "an archive": _replaced(lambda path: path.write_bytes(_npz())),
    "a header of a huge shape": _npy_header("(1000000000, 1000000000)"),
    "a header of a negative shape": _npy_header("(-1, 3)"),
    "a header that is no dict": _replaced(lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x05\x00[[[[\n")),
    "a header of code": _npy_header("__import__('os').mkdir('x')"),
}


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


def npz_damages(path: Path) -> Iterator[tuple[str, Damage]]:
    """Each array of an NPZ file in turn exchanged or taken out."""

    def change(path: Path, name: str, value: Any) -> None:
        with np.load(path) as file:
            arrays = dict(file)
        arrays.pop(name)
        if value is not None:
            arrays[name] = value
        path.unlink()
        np.savez(path, **arrays)

    with np.load(path) as file:
        names = file.files
    values = {
        "missing": None,
        "a number": np.array(3),
        "empty": np.zeros(0),
        "of another shape": np.zeros((7, 2)),
        "NaN": np.full((2, 14, 14), np.nan, np.float16),
        "strings": np.array(["a", "b", "c"]),
        "objects": np.array([Foreign()], dtype=object),
    }
    for name in names:
        for what, value in values.items():
            yield f"{name} is {what}", partial(change, name=name, value=value)


# --- archives


def _archive(*members: tuple[tarfile.TarInfo, bytes]) -> Damage:
    def make(path: Path) -> None:
        with tarfile.open(path, "w:gz") as tar:
            for info, content in members:
                info.size = len(content) if info.isreg() else 0
                tar.addfile(info, io.BytesIO(content))

    return _replaced(make)


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


ARCHIVES: dict[str, Damage] = {
    "no member": _archive(),
    "another folder": _archive((_member("birds/images.txt"), b"1 a.jpg\n")),
    "a file of the folder's name": _archive((_member("CUB_200_2011"), b"x")),
    "a path that leads out": _archive((_member("../outside.txt"), b"x")),
    "an absolute path": _archive((_member("/tmp/outside.txt"), b"x")),
    "a link that leads out": _archive((_member("CUB_200_2011", tarfile.SYMTYPE, "/etc"), b"")),
    "a hard link that leads out": _archive((_member("CUB_200_2011/a", tarfile.LNKTYPE, "../../../etc/passwd"), b"")),
    "a device": _archive((_member("CUB_200_2011/a", tarfile.CHRTYPE), b"")),
    "a name of 10000 letters": _archive((_member("CUB_200_2011/" + "a" * 10_000), b"x")),
    "no lists": _archive((_member("CUB_200_2011/README"), b"x")),
}
