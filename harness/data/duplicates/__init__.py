"""Copies of one photo among the training sources: found, told, and taken out."""

from harness.data.duplicates.deduplication import deduplicate
from harness.data.duplicates.report import DuplicateReport

__all__ = ["DuplicateReport", "deduplicate"]
