"""How a trained detector looks at photos, where that is not as its recipe says."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from harness.detection.recipes import DetectorScale

Precision = Literal["32", "16", "bf16"]

LEAST_SCALE, MOST_SCALE = 0.25, 4.0


class InferenceSettings(BaseModel):
    """What decides the boxes beside photos, weights and recipe; the defaults change nothing.

    Attributes:
        flip: look at the mirrored photo too.
        scales: factors of the recipe's input size, each looked at; 1 is the recipe's.
        precision: of the network's arithmetic; boxes are decoded and suppressed in 32 bits all the same.
        score_threshold: boxes of a lower score are not reported; None takes the recipe's.
        max_per_image: most boxes a photo; None takes the recipe's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: bool = False
    scales: tuple[Annotated[float, Field(ge=LEAST_SCALE, le=MOST_SCALE)], ...] = Field(default=(1.0,), min_length=1)
    precision: Precision = "32"
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    max_per_image: int | None = Field(default=None, ge=1)

    @field_validator("scales")
    @classmethod
    def _in_order(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(scales)) != len(scales):
            raise ValueError("a scale is given twice")
        return tuple(sorted(scales))

    @property
    def changes(self) -> dict[str, Any]:
        """What differs from the recipe, as JSON values; empty where nothing does."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def told(self, recipe: DetectorScale) -> str:
        """The settings of a detector in words.

        Args:
            recipe: the detector's, which says what is not set here.
        """
        scales = " ".join(f"{scale:g}" for scale in self.scales)
        return ", ".join(
            (
                f"scales {scales}" if len(self.scales) > 1 else f"scale {scales}",
                "with the mirrored photo" if self.flip else "no mirrored photo",
                {"32": "32 bits", "16": "float16", "bf16": "bfloat16"}[self.precision],
                f"scores from {recipe.score_threshold if self.score_threshold is None else self.score_threshold:g}",
                f"at most {self.max_per_image or recipe.max_per_image} boxes a photo",
            )
        )
