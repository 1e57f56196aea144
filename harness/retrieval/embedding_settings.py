"""How a retriever looks at crops, where that is not plainly."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Precision = Literal["32", "16", "bf16"]


class EmbeddingSettings(BaseModel):
    """What decides embeddings beside photos, boxes and weights; the defaults change nothing.

    Attributes:
        flip: add the embedding of the mirrored crop.
        precision: of the network's arithmetic; pooled powers and lengths are computed in 32 bits all the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: bool = False
    precision: Precision = "32"

    @property
    def changes(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON values; empty where nothing does."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @property
    def told(self) -> str:
        """The settings in words."""
        flip = "with the mirrored crop" if self.flip else "no mirrored crop"
        return f"{flip}, {({'32': '32 bits', '16': 'float16', 'bf16': 'bfloat16'})[self.precision]}"
