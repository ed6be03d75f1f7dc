"""What a person looks at after an evaluation: one row an image in `images.csv`, and `report.html` with a gallery."""

from utils.results.report.records import ImageRecord, read_records
from utils.results.report.report import Report

__all__ = ["ImageRecord", "Report", "read_records"]
