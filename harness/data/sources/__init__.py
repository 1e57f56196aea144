"""The training sources beside DeepFashion2: readers of local copies, one form for all."""

from harness.data.sources.reading import LICENCES, SOURCES, SourceReport, examine, read_source

__all__ = ["LICENCES", "SOURCES", "SourceReport", "examine", "read_source"]
