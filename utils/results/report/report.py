"""The folder that an evaluation leaves behind: figures, one row an image, and a page to look at.

    results.json      the figures, settings and versions
    images.csv        one row an image, see :mod:`utils.results.report.records`
    report.html       the page; it opens from the disk, without a server or a network
    data.js           the page's tables and pictures: browsers let a page from the disk load a script, but no JSON
    pictures/<n>/     thumbnails, 1000 a folder, numbered as the rows of images.csv from 0

All is written to `<folder>.part` as it comes and renamed at the end, so that an interrupted evaluation keeps its rows.
"""

from __future__ import annotations

import csv
import html
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from utils.metrics import ERROR_TYPES, METRICS, PIXEL_METRICS
from utils.results.charts import draw_chart, draw_histogram, inline_svg
from utils.results.report.records import COLUMNS, ImageRecord, read_records, to_row
from utils.system.errors import UsageError, UserError

PICTURES_PER_FOLDER = 1000
PAGE_FILES = Path(__file__).parent


class Report:
    """Writes the folder; as a context manager it keeps and names what there is when the evaluation stops early.

    Args:
        folder: where the report belongs: a new or an empty folder.
        class_names: names by class.
        title: the page's heading.

    Raises:
        UsageError: the folder holds files, cannot be made or written, or an interrupted evaluation left its `.part`.
    """

    def __init__(self, folder: str | Path, class_names: Sequence[str], title: str) -> None:
        self.folder = Path(folder).resolve()
        if not self.folder.name:
            raise UsageError(f"{folder} is the root of the file system; name a new folder for the report")
        self.part = self.folder.with_name(f"{self.folder.name}.part")
        self.class_names = list(class_names)
        self.title = title
        self.rows = 0
        _require_vacant(self.folder, self.part)
        try:
            self.part.mkdir(parents=True, exist_ok=True)
            # Each row reaches the file as soon as it is complete. A file name that is no Unicode stays readable.
            self._file = open(  # noqa: SIM115
                self.part / "images.csv", "w", encoding="utf-8", errors="backslashreplace", newline="", buffering=1
            )
            self._csv = csv.writer(self._file, lineterminator="\n")
            self._csv.writerow(COLUMNS)
        except OSError as error:
            raise UsageError(f"cannot write a report to {folder}: {_reason(error)}; choose another folder") from error

    def add(self, record: ImageRecord, thumbnail: bytes | None) -> None:
        """Writes one image's row and thumbnail: a JPEG file's bytes, or None for an unreadable picture.

        Raises:
            UserError: a file cannot be written; the rows so far, if there are any, stay in `<folder>.part`.
        """
        with self._naming_what_is_kept():
            if thumbnail is not None:
                path = self.part / picture_path(self.rows)
                if self.rows % PICTURES_PER_FOLDER == 0 or not path.parent.is_dir():
                    path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(thumbnail)
            self._csv.writerow(to_row(record, self.class_names))
        self.rows += 1

    def finish(self, results: Mapping[str, Any]) -> Path:
        """Writes the figures and the page and gives the folder its name.

        Args:
            results: saved as `results.json`. The page shows, where given, `scores` (a summary of
                :class:`utils.metrics.LocalizationScores`, or several by title), `published` (percent by metric),
                `errors` (type -> `count`, `percent`), `curves` (a list of `title`, `x_label`, `x`, `series`: name ->
                values, perhaps `y_label`, and `mark`: the x in force), `maps` (title -> the figures of one kind of
                map), `sweep`, `mean` (which of both means these tables show), `pixels`, `settings`, `versions`; and any
                other group of numbers, such as `max_box_acc`, as a table.

        Returns:
            The path of report.html.

        Raises:
            UserError: a file cannot be written or the folder was filled meanwhile; all rows stay in `<folder>.part`.
        """
        with self._naming_what_is_kept():
            self._file.close()
            self._write_page(results, interrupted=False)
            if self.folder.is_dir():
                self.folder.rmdir()
            os.replace(self.part, self.folder)
        return self.folder / "report.html"

    def abort(self) -> str:
        """Ends the report early: the rows and thumbnails stay in `<folder>.part`, with a page of what there is.

        Returns:
            A sentence that names the folder; "" if there was no row yet, and nothing stays.
        """
        with suppress(OSError):  # a full disk: what could be written is written
            self._file.close()
        if not self.rows:
            shutil.rmtree(self.part, ignore_errors=True)
            return ""
        with suppress(OSError, UserError):  # the page is a bonus: the disk may be full, matplotlib missing
            self._write_page({}, interrupted=True)
        return f"stopped early: {self._kept()}"

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._file.closed and (sentence := self.abort()):
            print(sentence, file=sys.stderr)

    def _write_page(self, results: Mapping[str, Any], interrupted: bool) -> None:
        results = _as_json(results)
        if not interrupted:
            text = json.dumps(results, indent=2, ensure_ascii=False)
            (self.part / "results.json").write_text(f"{text}\n", encoding="utf-8", errors="backslashreplace")
        ious = []
        with open(self.part / "data.js", "w", encoding="ascii") as file:
            shared: dict[str, Any] = {"classes": self.class_names, "metrics": METRICS, "error_types": ERROR_TYPES}
            shared |= {"pixel_metrics": PIXEL_METRICS, "interrupted": interrupted, "results": results}
            file.write(f"window.REPORT = {_script(shared)};\nwindow.REPORT_IMAGES = [")
            for number, record in enumerate(read_records(self.part / "images.csv")):
                file.write(f"{',' if number else ''}\n{_script(_card(self.part, number, record))}")
                ious += [] if record.iou is None else [record.iou]
            file.write("\n];\n")
        page, style, script = (_page_file(name) for name in ("page.html", "page.css", "page.js"))
        # The title comes last: whatever it holds is not replaced in turn.
        page = page.replace("{{style}}", style).replace("{{script}}", script)
        page = page.replace("{{charts}}", _draw_charts(results, ious))
        page = page.replace("{{title}}", html.escape(self.title))
        (self.part / "report.html").write_text(page, encoding="utf-8", errors="backslashreplace")

    @contextmanager
    def _naming_what_is_kept(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UserError) as error:
            kept = f"; {self._kept()}" if self.rows else ""  # without a row nothing stays
            if isinstance(error, UserError):  # matplotlib is missing
                raise UserError(f"{error}{kept}") from error
            hint = "free some space or choose another folder"
            raise UserError(f"cannot write the report: {_reason(error)}; {hint}{kept}") from error

    def _kept(self) -> str:
        rows = f"the rows of {self.rows} pictures are" if self.rows != 1 else "the row of 1 picture is"
        return f"{rows} kept in {self.part}"


def picture_path(row: int) -> str:
    """The thumbnail of a row of images.csv (from 0), relative to the report's folder: `pictures/012/012345.jpg`."""
    return f"pictures/{row // PICTURES_PER_FOLDER:03d}/{row:06d}.jpg"


def _require_vacant(folder: Path, part: Path) -> None:
    """UsageError if a report cannot appear under the name of `folder` at the end of an evaluation."""
    hint = "name a new folder"
    try:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file; {hint} for the report")
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(f"{folder} holds files already; {hint} for the report")
        if folder.is_dir() and (folder.is_mount() or folder == Path.cwd()):
            # It could not be replaced by the finished one.
            raise UsageError(f"{folder} is in use by the system or the shell; {hint} inside it for the report")
        if os.path.lexists(part) and (part.is_symlink() or not part.is_dir() or any(part.iterdir())):
            raise UsageError(f"{part} holds what an interrupted evaluation wrote; move it away or delete it")
    except OSError as error:
        raise UsageError(f"cannot write a report to {folder}: {_reason(error)}; choose another folder") from error


def _draw_charts(results: Mapping[str, Any], ious: Sequence[float]) -> str:
    """The page's section of charts; nothing where there is nothing to draw."""
    curves = results.get("curves", ())
    of_pixels = bool(results.get("pixels")) and not results["scores"]["boxed"]
    drawn = [draw_chart(curve) for curve in curves if any(v is not None for y in curve["series"].values() for v in y)]
    drawn += [draw_histogram(ious, of_pixels)] if ious else []
    if not drawn:
        return ""
    figures = []
    for number, figure in enumerate(drawn):
        title = html.escape(figure.axes[0].get_title(loc="left"))
        figures.append(f'<figure role="img" aria-label="{title}">{inline_svg(figure, f"chart{number}")}</figure>')
    return f'<section id="charts"><h2>Charts</h2><div class="charts">{"".join(figures)}</div></section>'


def _card(part: Path, number: int, record: ImageRecord) -> list[Any]:
    """What the page needs of a row, as short as it can be."""
    best = (record.top5[0], round(record.probabilities[0], 4)) if record.top5 else (None, None)
    iou = None if record.iou is None else round(record.iou, 4)
    picture = picture_path(number) if (part / picture_path(number)).is_file() else ""
    return [record.id, record.label, *best, iou, record.error, picture, record.failure]


def _script(value: Any) -> str:
    """JSON that may stand in a script wherever it is put: ASCII, no `</script>`, no `<!--`."""
    return json.dumps(_as_json(value), separators=(",", ":")).replace("<", "\\u003c")


def _as_json(value: Any) -> Any:
    """What `json` can write: NumPy's numbers and arrays as Python's, NaN and infinities as None, the rest as text."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _page_file(name: str) -> str:
    return (PAGE_FILES / name).read_text(encoding="utf-8")


def _reason(error: OSError) -> str:
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
