"""The report: its table read back, its folder kept whole, its drawings, and its page as a browser builds it."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from utils.results.drawing import PREDICTED_COLOUR
from utils.results.report import ImageRecord, Report, read_records
from utils.results.report.records import COLUMNS
from utils.results.report.report import picture_path
from utils.results.report.thumbnails import GAP, LONGEST_SIDE, draw_thumbnail, encode_jpeg
from utils.system.errors import UsageError, UserError

CLASSES = ["Albatross", 'Bunting, "Indigo"', "<b>Crow</b>"]
RECORD = ImageRecord(
    id="001/bird_1",
    label=0,
    top5=(1, 0, 2),
    probabilities=(0.5, 0.25, 0.125),
    box=(10.0, 20.5, 310.25, 220.0),
    true_boxes=((12.0, 18.0, 300.0, 200.0), (0.0, 0.0, 5.5, 6.0)),
    size=(400, 300),
    iou=0.123456789012345,
    error="wrong class",
    seconds=0.25,
    failure="",
)
MISSED = replace(
    RECORD,
    id="001/torn",
    top5=(),
    probabilities=(),
    box=None,
    true_boxes=(),
    size=(0, 0),
    iou=None,
    error="missed",
    failure='cannot read "torn.jpg", it is cut short',
)
PICTURE = np.full((256, 256, 3), 128, dtype=np.uint8)
MAP = np.linspace(0, 1, 14 * 14).reshape(14, 14)


def drawn(record: ImageRecord = RECORD, picture: np.ndarray = PICTURE, spatial_map: np.ndarray | None = MAP) -> bytes:
    return encode_jpeg(draw_thumbnail(record, picture, spatial_map, 224 / 256))


WICKED_IDS = [
    "</script><script>document.title='taken'</script>",
    "<img src=x onerror=alert(1)>",
    "=HYPERLINK(1)",
    "'=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    'a,"b"\nc',
    "\u2028 \u00e9 \U0001f426",
]


def write_report(folder, records, results=None, pictures=False):
    """A finished report of the records."""
    with Report(folder, CLASSES, "Birds & <bees>") as report:
        for record in records:
            report.add(record, drawn(record) if pictures else None)
        return report.finish(results or {})


def read_data(folder):
    """What data.js hands to the page: (shared values, one list a picture); each part must be JSON."""
    shared, images = re.fullmatch(
        r"window\.REPORT = (.*);\nwindow\.REPORT_IMAGES = (\[.*\]);\n", (folder / "data.js").read_text(), re.DOTALL
    ).groups()
    return json.loads(shared), json.loads(images)


def test_csv_round_trip(tmp_path):
    """Protects images.csv: every field comes back as it was, ids of any kind included."""
    records = [RECORD, MISSED, replace(RECORD, id="own", label=None, true_boxes=(), iou=None, error="")]
    records += [replace(RECORD, id=wicked) for wicked in WICKED_IDS]
    folder = write_report(tmp_path / "report", records).parent
    assert list(read_records(folder / "images.csv")) == records


def test_csv_cells(tmp_path):
    """Protects readers of images.csv: names beside labels, empty cells for what is not there, no live formula."""
    folder = write_report(tmp_path / "report", [RECORD, MISSED, replace(RECORD, id="=1+1")]).parent
    with open(folder / "images.csv", encoding="utf-8", newline="") as file:
        first, missed, formula = csv.DictReader(file)
    assert tuple(first) == COLUMNS
    assert [first["top1_label"], first["top1_class"], first["top1_probability"]] == ["1", CLASSES[1], "0.5"]
    assert [first[name] for name in ("x0", "y0", "x1", "y1")] == ["10", "20.5", "310.25", "220"]
    assert first["true_boxes"] == "12 18 300 200; 0 0 5.5 6"
    assert [first["top4_label"], first["top4_class"], missed["x0"], missed["iou"], missed["top1_class"]] == [""] * 5
    assert formula["id"] == "'=1+1"


def test_csv_numbers_of_numpy(tmp_path):
    """Protects images.csv from NumPy's way of writing its own numbers."""
    record = replace(
        RECORD,
        label=np.int64(2),
        box=tuple(np.float32([1, 2.5, 3, 4])),
        iou=np.float64(0.1),
        size=tuple(np.array([7, 9])),
    )
    folder = write_report(tmp_path / "report", [record]).parent
    assert next(read_records(folder / "images.csv")) == replace(record, label=2, box=(1, 2.5, 3, 4), size=(7, 9))
    assert "np." not in (folder / "images.csv").read_text()


def test_rows_reach_the_disk_at_once(tmp_path):
    """Protects an hour's evaluation from a killed process: all rows are on the disk before the report is finished."""
    report = Report(tmp_path / "report", CLASSES, "title")
    for number in range(3):
        report.add(replace(RECORD, id=str(number)), drawn())
        assert [record.id for record in read_records(report.part / "images.csv")] == [str(n) for n in range(number + 1)]
    assert not report.folder.exists()
    report.abort()


def test_abort_keeps_the_rows_and_names_them(tmp_path, capsys):
    """Protects what an interrupted evaluation found: rows, thumbnails and a page stay in a folder that is named."""
    with pytest.raises(KeyboardInterrupt), Report(tmp_path / "report", CLASSES, "title") as report:
        report.add(RECORD, drawn())
        report.add(MISSED, None)
        raise KeyboardInterrupt
    part = tmp_path / "report.part"
    assert str(part) in capsys.readouterr().err
    assert list(read_records(part / "images.csv")) == [RECORD, MISSED]
    assert (part / picture_path(0)).is_file() and (part / "report.html").is_file()
    shared, images = read_data(part)
    assert shared["interrupted"] and [image[0] for image in images] == [RECORD.id, MISSED.id]
    assert not (tmp_path / "report").exists()
    with pytest.raises(UsageError, match=r"report\.part holds what an interrupted evaluation wrote"):
        Report(tmp_path / "report", CLASSES, "title")


def test_abort_before_the_first_row_leaves_nothing(tmp_path):
    """Protects the next run: an evaluation that failed at once does not block the folder's name."""
    with pytest.raises(ValueError), Report(tmp_path / "report", CLASSES, "title"):
        raise ValueError
    assert not list(tmp_path.iterdir())


def test_folders_refused_at_once(tmp_path, monkeypatch):
    """Protects files that are there already, and the user from a refusal at the end of an evaluation."""
    full, file, here = tmp_path / "full", tmp_path / "file", tmp_path / "here"
    full.mkdir()
    here.mkdir()
    (full / "thesis.txt").write_text("years of work")
    file.write_text("a file")
    monkeypatch.chdir(here)
    for folder, words in (
        (full, "holds files already"),
        (file, "is a file"),
        (file / "report", "cannot write a report"),
        ("/proc/report", "cannot write a report"),
        (here, "in use"),
    ):
        with pytest.raises(UsageError, match=words):
            Report(folder, CLASSES, "title")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full", "here"]
    assert (full / "thesis.txt").read_text() == "years of work"


def test_empty_folder_is_used(tmp_path):
    """Protects those who make the folder first."""
    (tmp_path / "report").mkdir()
    assert write_report(tmp_path / "report", [RECORD]) == tmp_path / "report" / "report.html"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report"]


def test_folder_filled_meanwhile(tmp_path):
    """Protects both sides when another run takes the name first: neither loses a file."""
    report = Report(tmp_path / "report", CLASSES, "title")
    report.add(RECORD, drawn())
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "other").write_text("another run's")
    with pytest.raises(UserError, match=r"the row of 1 picture is kept in .*report\.part"):
        report.finish({})
    assert (tmp_path / "report" / "other").read_text() == "another run's"
    assert (tmp_path / "report.part" / "report.html").is_file()


def test_results_json(tmp_path):
    """Protects results.json: strict JSON, whatever NumPy or a division by zero puts into the figures."""
    results = {"a": np.float32(0.5), "b": np.arange(3), "c": float("nan"), "d": tmp_path, "e": {1: (np.bool_(True),)}}
    folder = write_report(tmp_path / "report", [RECORD], results).parent
    found = json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)
    assert found == {"a": 0.5, "b": [0, 1, 2], "c": None, "d": str(tmp_path), "e": {"1": [True]}}


def test_report_holds_no_rows_in_memory(tmp_path):
    """Protects memory: 2,000 images more, of 400 kB of ids alone, leave no trace in it."""
    report = Report(tmp_path / "report", CLASSES, "title")
    tracemalloc.start()
    try:
        for number in range(2200):
            report.add(replace(RECORD, id=f"{number:04d}" * 50), None)
            if number == 199:
                before = tracemalloc.get_traced_memory()[0]
        growth = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    report.abort()
    assert growth < 40_000


def test_row_cut_short_is_left_out(tmp_path):
    """Protects the rows before a power cut: what the last one lacks does not spoil the others."""
    path = write_report(tmp_path / "report", [RECORD, MISSED, RECORD]).parent / "images.csv"
    whole = path.read_bytes()
    for cut in (4, 30, 90):
        path.write_bytes(whole[:-cut])
        assert list(read_records(path)) == [RECORD, MISSED]


def test_failing_disk_is_named(tmp_path):
    """Protects the user from a traceback when a thumbnail cannot be written: the sentence says where the rows are."""
    report = Report(tmp_path / "report", CLASSES, "title")
    report.add(RECORD, None)
    (report.part / "pictures").write_text("no folder")
    with pytest.raises(UserError, match=r"the row of 1 picture is kept in .*report\.part"), report:
        report.add(RECORD, drawn())
    assert list(read_records(tmp_path / "report.part" / "images.csv")) == [RECORD]
    first = Report(tmp_path / "first", CLASSES, "title")
    (first.part / "pictures").write_text("no folder")
    with pytest.raises(UserError) as stop, first:
        first.add(RECORD, drawn())
    assert "kept" not in str(stop.value) and not first.part.exists()  # nothing was, and nothing is said to be


def test_nothing_is_written_through_a_planted_link(tmp_path):
    """Protects other folders: the name of the unfinished report may be known, and somebody's link be there."""
    (tmp_path / "other").mkdir()
    (tmp_path / "report.part").symlink_to(tmp_path / "other")
    with pytest.raises(UsageError, match=r"report\.part holds what"):
        Report(tmp_path / "report", CLASSES, "title")


def test_thumbnails_are_spread_over_folders(tmp_path):
    """Protects file systems from 50,000 files in one folder, and the page's paths from pointing elsewhere."""
    assert picture_path(49_999) == "pictures/049/049999.jpg"
    paths = [picture_path(number).split("/")[1] for number in range(2500)]
    assert [paths.count(folder) for folder in sorted(set(paths))] == [1000, 1000, 500]
    folder = write_report(tmp_path / "report", [RECORD, RECORD], pictures=True).parent
    assert [image[6] for image in read_data(folder)[1]] == [picture_path(0), picture_path(1)]
    with Image.open(folder / picture_path(1)) as picture:
        assert picture.format == "JPEG" and picture.size == (2 * LONGEST_SIDE + GAP, LONGEST_SIDE * 3 // 4)


def test_thumbnail_takes_up_the_aspect_ratio_and_places_the_box():
    """Protects what one sees: the picture un-squashed, the predicted box where it lies in original pixels."""
    record = replace(RECORD, size=(600, 1200), box=(150.0, 300.0, 450.0, 900.0), true_boxes=())
    thumbnail = draw_thumbnail(record, PICTURE, MAP, 224 / 256)
    assert thumbnail.shape == (240, 2 * 120 + GAP, 3)
    drawn = (thumbnail[:, :120] == PREDICTED_COLOUR).all(axis=-1)
    rows, columns = np.nonzero(drawn[:175])  # above the word
    assert abs(rows.min() - 60) <= 1 and abs(columns.min() - 30) <= 1 and abs(columns.max() - 89) <= 1
    assert drawn[100, [30, 89]].any() and not drawn[100, 40:80].any()


@pytest.mark.parametrize("size", [(0, 0), (100_000, 3), (1, 1)])
def test_thumbnail_of_extreme_pictures(size):
    """Protects the report from pictures of unknown size or extreme shape, and from boxes that are no boxes."""
    boxes = ((np.nan,) * 4, (9e9, 9e9, -9e9, -9e9), (-50.0, -50.0, -10.0, -10.0), (-1e12, -1e12, 1e12, 1e12))
    thumbnail = draw_thumbnail(replace(RECORD, size=size, true_boxes=boxes), PICTURE, np.full((7, 7), np.nan), 1.0)
    assert thumbnail.dtype == np.uint8 and min(thumbnail.shape[:2]) >= 32 and thumbnail.shape[1] <= 2 * 240 + GAP


def test_wicked_ids_and_names_cannot_leave_their_data(tmp_path):
    """Protects readers of a report on strangers' pictures: no id or name becomes markup or ends the script."""
    folder = write_report(tmp_path / "report", [replace(RECORD, id=wicked) for wicked in WICKED_IDS]).parent
    data = (folder / "data.js").read_text(encoding="ascii")
    assert "<" not in data
    shared, images = read_data(folder)
    assert [image[0] for image in images] == WICKED_IDS and shared["classes"] == CLASSES
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Birds &amp; &lt;bees&gt;" in page and "<bees>" not in page
    assert "innerHTML" not in page and "{{" not in page


def test_file_name_that_is_no_unicode(tmp_path):
    """Protects the report from file names in other encodings."""
    folder = write_report(tmp_path / "report", [replace(RECORD, id="bird_\udce9")], {"name": "\udce9"}).parent
    assert next(read_records(folder / "images.csv")).id == "bird_\\udce9"


def test_page_needs_nothing_else(tmp_path):
    """Protects a report that is opened from the disk without a network: nothing is loaded from elsewhere."""
    page = write_report(tmp_path / "report", [RECORD]).read_text(encoding="utf-8")
    found = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert {link for link in found if not link.startswith("#")} == {"data.js"}
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest", page)
    assert [url for url in re.findall(r"https?://[^\"' ]*", page) if "w3.org" not in url] == []


class Page(HTMLParser):
    """The texts of a page by tag and class, and the attributes of its pictures."""

    def __init__(self, markup):
        super().__init__(convert_charrefs=True)
        self.open, self.texts, self.images, self.script_texts = [], {}, [], []
        self.feed(markup)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.images.append(attributes)
        if tag not in ("img", "input", "meta", "br"):
            key = f"{tag}.{attributes.get('class', '')}"
            self.open.append((tag, key))
            self.texts.setdefault(key, []).append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, text):
        for _, key in self.open:
            self.texts[key][-1] += text


def browser():
    """A Chromium on this machine, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def build_page(path, profile, hash_state):
    """The page as Chromium builds it."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
    command = [browser(), *options, f"--user-data-dir={profile}", f"{path.as_uri()}#{hash_state}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return Page(result.stdout)


def many_records():
    """150 images: 120 of type part with falling IoU, the others right; the last id is markup."""
    records = []
    for number in range(150):
        is_part = number < 120
        records.append(
            replace(
                RECORD,
                id=f"bird_{number:03d}",
                label=number % 2,
                top5=(0, 1, 2),
                iou=(150 - number) / 400 if is_part else 0.9,
                error="part" if is_part else "right",
            )
        )
    return [*records[:-1], replace(records[-1], id=WICKED_IDS[1])]


RESULTS = {
    "scores": {
        **{name: {"class_mean": 71.25, "image_mean": 72.5} for name in ("top1_loc", "top5_loc", "gt_known_loc")},
        **{name: {"class_mean": 81.25, "image_mean": 82.5} for name in ("top1_cls", "top5_cls")},
        "images": 150,
        "missed": 0,
    },
    "published": {"top1_loc": 77.25, "top5_loc": 90.08, "gt_known_loc": 95.13},
    "curves": [{"title": "Loc", "x_label": "threshold", "x": [0, 0.5, 1], "series": {"GT": [1, 5, None]}, "mark": 0.5}],
    "settings": {"threshold": 0.15},
    "max_box_acc": {
        "max_box_acc": {"value": 91.5, "threshold": 0.25},
        "max_box_acc_v2": {"value": 80.5, "at_iou": [{"iou": 0.3, "value": 95.5, "threshold": 0.75}]},
    },
    "errors": {"right": {"count": 30, "percent": 20.0}, "part": {"count": 120, "percent": 80.0}, "images": 150},
}


def test_page_filters_sorts_and_pages(tmp_path):
    """Protects the page: figures, curve, filter, order and paging, in Chromium where there is one."""
    path = write_report(tmp_path / "report", many_records(), RESULTS, pictures=True)
    shared, images = read_data(path.parent)
    assert [image[0] for image in images] == [record.id for record in many_records()]
    assert shared["results"] == RESULTS and shared["metrics"]["gt_known_loc"] == "GT-known Loc"
    # The script finds every place that it fills.
    markup = path.read_text(encoding="utf-8")
    body, script = markup.split('<script src="data.js"></script>')
    wanted = re.findall(r'(?:byId|show)\("(\w+)"', script)
    assert len(set(wanted)) >= 6 and all(f'id="{name}"' in body for name in wanted)
    assert set(re.findall(r"elements\.(\w+)", script)) <= set(re.findall(r'name="(\w+)"', body))
    if browser() is None:
        return

    page = build_page(path, tmp_path / "profile", "error=part&page=2")
    worst_first = [f"bird_{number:03d}" for number in range(119, -1, -1)]
    assert page.texts["span.id"] == worst_first[48:96]
    assert page.texts["output."] == ["120 pictures, page 2 of 3"] * 2
    assert page.images[0]["src"] == picture_path(119 - 48) and "bird_071" in page.images[0]["alt"]
    assert "77.25" in page.texts["td."] and page.texts["span.badge"] == ["part"] * 48
    tables = " ".join(page.texts["tr."])
    assert "MaxBoxAcc91.5 at threshold 0.25" in tables and "MaxBoxAccV2 IoU 0.395.5 at threshold 0.75" in tables
    assert page.texts["span.count"] == ["30 · 20.00%", "120 · 80.00%"]
    assert [any(words in svg for svg in page.texts["svg."]) for words in ("in force: 0.5", "median")] == [True] * 2

    page = build_page(path, tmp_path / "profile", "sort=best&class=1&text=%3CIMG")
    assert page.texts["span.id"] == [WICKED_IDS[1]] and page.texts["output."][0] == "1 picture, page 1 of 1"
    assert [image["src"] for image in page.images] == [picture_path(149)]

    # What a reader does: press the bar of an error type, then go on to the next page.
    clicks = "document.querySelector('[data-error=part]').click();"
    clicks += "setTimeout(() => document.querySelector('[data-go=next]').click(), 300);"
    clicked = path.with_name("clicked.html")
    clicked.write_text(f"{markup}<script>{clicks}</script>", encoding="utf-8")
    page = build_page(clicked, tmp_path / "profile", "class=0")
    assert page.texts["output."][0] == "120 pictures, page 2 of 3" and page.texts["span.id"] == worst_first[48:96]

    page = build_page(path, tmp_path / "profile", "text=penguin")
    assert "span.id" not in page.texts and page.texts["output."][0] == "no such picture"


def test_charts_are_part_of_the_page(tmp_path):
    """Protects the charts: drawn without JavaScript, those with values alone, and none takes another's parts."""
    empty = {**RESULTS["curves"][0], "title": "nothing", "series": {"GT": [None] * 3}}
    results = {**RESULTS, "curves": [*RESULTS["curves"], empty, {**RESULTS["curves"][0], "title": "<again>"}]}
    page = write_report(tmp_path / "report", many_records(), results).read_text(encoding="utf-8")
    assert re.findall(r'<figure role="img" aria-label="([^"]*)">', page) == [
        "Loc",
        "&lt;again&gt;",
        "30 of 150 predicted boxes with IoU above 0.5; median 0.26",
    ]
    charts = page.partition('<section id="charts">')[2].partition("</section>")[0].split("<figure ")[1:]
    ids = [set(re.findall(r'\bid="([^"]*)"', chart)) for chart in charts]
    assert len(set.union(*ids)) == sum(map(len, ids)) > 50
    for chart, own in zip(charts, ids, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', chart)) <= own
    assert "GT, highest 5 at 0.5" in charts[0] and "in force: 0.5" in charts[0] and "<?xml" not in page


def test_without_matplotlib(tmp_path, monkeypatch):
    """Protects an evaluation on an old installation: what is missing is said, and where figures and rows are."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"matplotlib, which is missing.*; the row of 1 picture is kept in .*\.part"):
        write_report(tmp_path / "report", [RECORD], RESULTS)
    assert json.loads((tmp_path / "report.part" / "results.json").read_text()) == RESULTS
    report = Report(tmp_path / "second", CLASSES, "title")
    report.add(RECORD, None)
    assert "kept in" in report.abort()


def test_page_of_ones_own_pictures(tmp_path):
    """Protects pictures without truth: a page of boxes and classes, without empty tables or charts."""
    own = replace(RECORD, label=None, true_boxes=(), iou=None, error="")
    path = write_report(tmp_path / "report", [own, replace(own, id="another", failure="torn")], {}, pictures=True)
    _, images = read_data(path.parent)
    assert [image[1] for image in images] == [None, None] and [image[4] for image in images] == [None, None]
    sections = re.findall(r'<section id="(\w+)"( hidden)?', path.read_text(encoding="utf-8"))
    assert [name for name, hidden in sections if not hidden] == ["gallery"]
    if browser() is None:
        return
    page = build_page(path, tmp_path / "profile", "")
    assert page.texts["span.id"] == [RECORD.id, "another"]  # by id
    assert page.texts["span.failure"] == ["torn"] and "table." not in page.texts and "svg." not in page.texts


def test_jpeg_keeps_red_red(tmp_path):
    """Protects the colours from OpenCV's order of channels."""
    red = np.zeros((256, 256, 3), np.uint8)
    red[..., 0] = 220
    with Report(tmp_path / "report", CLASSES, "title") as report:
        report.add(RECORD, drawn(replace(RECORD, box=None, true_boxes=()), red, None))
        folder = report.finish({}).parent
    with Image.open(io.BytesIO((folder / picture_path(0)).read_bytes())) as picture:
        assert picture.size == (240, 180) and picture.getpixel((100, 100))[0] > 200 > 40 > picture.getpixel((9, 9))[2]
