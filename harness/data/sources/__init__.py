"""The training sources beside DeepFashion2: readers of local copies, one form for all."""

from harness.data.sources.reading import LICENCES, SAMPLE_PHOTOS, SOURCES, SourceReport, examine, read_source

__all__ = ["LICENCES", "SAMPLE_PHOTOS", "SOURCES", "SourceReport", "examine", "read_source"]
