"""What is known of every query: all that slices of any score of them are cut by.

Legend: Q queries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from harness.scoring.hearing import Hearing
from harness.types import Ints


@dataclass(frozen=True, eq=False)
class Questions:
    """The queries of a split, one row each, in the order of the query file.

    Attributes:
        image_ids: (Q,) int64, the consumer photo.
        category_ids: (Q,) int64.
        num_counterparts: (Q,) int64, shop items that match.
        attributes: ``scale``, ``occlusion``, ``zoom_in``, ``viewpoint`` as far as annotated -> (Q,) int64 in 1-3, 0
            for not annotated.

    Raises:
        ValueError: columns of different lengths, or none at all, or what is no column.
    """

    image_ids: Ints
    category_ids: Ints
    num_counterparts: Ints
    attributes: Mapping[str, Ints]

    def __post_init__(self) -> None:
        tables = [name for name, column in self._columns().items() if column.ndim != 1]
        if tables:
            raise ValueError(f"questions: {tables[0]}: expected one dimension")
        lengths = {len(column) for column in self._columns().values()}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"questions: expected columns of one length above 0, got {sorted(lengths)}")

    @classmethod
    def of(cls, hearing: Hearing) -> Questions:
        """The queries that results were heard on."""
        asked, queries = hearing.query_rows, hearing.queries
        attributes = {name: values[asked] for name, values in queries.attributes.items()}
        return cls(queries.image_ids[asked], queries.category_ids[asked], hearing.num_counterparts, attributes)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Questions:
        """What `as_json` gave.

        Raises:
            ValueError: a column is missing, or is none.
        """
        try:
            columns = {name: np.array(values[name], np.int64) for name in _ALWAYS}
            attributes = {str(name): np.array(column, np.int64) for name, column in values["attributes"].items()}
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"questions: {type(error).__name__}: {error}") from error
        return cls(**columns, attributes=attributes)

    def as_json(self) -> dict[str, Any]:
        """The columns as lists."""
        columns = {name: getattr(self, name).tolist() for name in _ALWAYS}
        return columns | {"attributes": {name: values.tolist() for name, values in self.attributes.items()}}

    def __len__(self) -> int:
        return len(self.image_ids)

    @cached_property
    def id(self) -> str:
        """SHA-256 of the columns."""
        text = json.dumps(self.as_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _columns(self) -> dict[str, Ints]:
        return {name: getattr(self, name) for name in _ALWAYS} | dict(self.attributes)


_ALWAYS = ("image_ids", "category_ids", "num_counterparts")
