"""How the four numbers of a field's boxes can be read: as two corners, or as a corner or centre and size."""

from __future__ import annotations

from typing import Literal

import numpy as np

from harness.types import GALLERY_LENGTH, Floats

Certainty = Literal["no", "perhaps", "surely"]

MARGIN_PX = 1.0
"""How far a box may reach out of its photo: rounding, and annotators."""

STICKS_OUT_PX = 5.0
"""How far a box may reach out of its photo and still be clipped; more is a sign of another size, order or photo."""

MIN_SIZED = 20
"""Boxes of photos of known size that are enough to tell a convention."""

_MIN_BOXES, _MIN_UNIT = 50, 10
_FAR_SHARE, _MISFIT_SHARE, _CENTRED_SHARE, _PATCHY_SHARE, _ALIKE_SHARE = 0.05, 0.1, 0.9, 0.1, 0.95
_RUN = GALLERY_LENGTH
_MAX_PHOTO_PX = 10_000.0


class Coordinates:
    """Counts over all boxes of one field.

    Without photos, a file of xywh shows in boxes that are inverted in one axis alone: x > width and y > height come
    and go apart, while corners given in the wrong order are inverted in both. With photos it shows as such: read as
    xywh the boxes lie in their photos, read as xyxy many do not. Boxes of [centre x, centre y, width, height] look
    alike, but none of them has x < width / 2 or y < height / 2, as a fair share of garments has in xywh.
    """

    def __init__(self) -> None:
        self.num = self.num_inverted = self.num_in_x = self.num_in_y = self.num_negative = self.num_unit = 0
        self.num_sized = self.num_xyxy = self.num_xywh = self.num_centred = self.num_far_out = 0
        self.num_runs = self.num_runs_in_order = 0
        self.num_misfits = self.num_inverted_sized = self.num_inverted_misfits = self.num_ordered = 0

    def add(self, boxes: Floats, sizes: Floats | None) -> None:
        """Count some boxes: (N, 4), and (N, 2) width and height of their photos, NaN where unknown."""
        x, y, width, height = boxes.T
        x_inverted, y_inverted = x > width, y > height
        inverted = x_inverted | y_inverted
        self.num += len(boxes)
        self.num_inverted += int(inverted.sum())
        self.num_in_x += int((x_inverted & ~y_inverted).sum())
        self.num_in_y += int((y_inverted & ~x_inverted).sum())
        self.num_negative += int((np.minimum(np.minimum(x, y), np.minimum(width, height)) < 0).sum())
        self.num_unit += int(((boxes >= 0) & (boxes <= 1)).all(axis=1).sum())
        runs = inverted[: len(boxes) // _RUN * _RUN].reshape(-1, _RUN)
        self.num_runs += len(runs)
        self.num_runs_in_order += int((~runs.any(axis=1)).sum())
        ends_x, ends_y = x + width, y + height
        # No photo at all holds such a box of x, y, width and height.
        misfits = inverted & ((width < 0) | (height < 0) | (ends_x > _MAX_PHOTO_PX) | (ends_y > _MAX_PHOTO_PX))
        self.num_misfits += int(misfits.sum())
        centred = (width >= 0) & (height >= 0) & (2 * (x + STICKS_OUT_PX) >= width)
        centred &= 2 * (y + STICKS_OUT_PX) >= height
        if sizes is not None:
            # Not "within": comparing with NaN is false, and photos of unknown size exclude nothing.
            centred &= ~((x + width / 2 > sizes[:, 0] + STICKS_OUT_PX) | (y + height / 2 > sizes[:, 1] + STICKS_OUT_PX))
        self.num_centred += int(centred.sum())
        if sizes is None:
            return
        limits = sizes + MARGIN_PX
        inside = (boxes >= -MARGIN_PX).all(axis=1)
        is_sized = np.isfinite(sizes[:, 0])
        self.num_sized += int(is_sized.sum())
        self.num_xyxy += int((inside & (boxes[:, 2:] <= limits).all(axis=1) & ~inverted).sum())
        self.num_xywh += int((inside & (ends_x <= limits[:, 0]) & (ends_y <= limits[:, 1])).sum())
        far = (boxes < -STICKS_OUT_PX).any(axis=1) | (boxes > np.tile(sizes, 2) + STICKS_OUT_PX).any(axis=1)
        self.num_far_out += int((is_sized & far).sum())
        too_large = misfits | (ends_x > sizes[:, 0] + STICKS_OUT_PX) | (ends_y > sizes[:, 1] + STICKS_OUT_PX)
        self.num_inverted_sized += int((is_sized & inverted).sum())
        self.num_inverted_misfits += int((is_sized & inverted & too_large).sum())
        self.num_ordered += int((is_sized & inverted & ~far).sum())

    @property
    def are_xywh(self) -> Certainty:
        """Whether the boxes are [x, y, width, height]; perhaps, if they may be centres instead."""
        if self.num_sized >= MIN_SIZED:
            if self.num_xyxy > 0.9 * self.num_sized:
                return "no"
            if self.may_be_centres and min(self.num_in_x, self.num_in_y) >= 0.01 * self.num:
                return "perhaps"
            if self.num_xywh < 0.9 * self.num_sized:
                return "no"
            return "surely" if self.num_xywh >= 0.99 * self.num_sized and not self.may_be_centres else "perhaps"
        if self.num < _MIN_BOXES or min(self.num_in_x, self.num_in_y) < 0.01 * self.num:
            return "no"
        if self.num_inverted < 0.05 * self.num:
            return "no"
        apart = min(self.num_in_x, self.num_in_y) >= 0.03 * self.num and not self.may_be_centres and not self.is_patchy
        return "surely" if apart and self.num_inverted >= 0.1 * self.num and not self.num_negative else "perhaps"

    @property
    def may_be_centres(self) -> bool:
        """Whether nearly all boxes can be read as [centre x, centre y, width, height]."""
        return self.num > 0 and self.num_centred >= _CENTRED_SHARE * self.num

    @property
    def is_patchy(self) -> bool:
        """Whether more runs of 20 boxes, such as gallery lists, are free of inverted ones than chance explains.

        Then a part of the file is in another convention than the rest, and converting all would spoil that part.
        """
        by_chance = (1 - self.num_inverted / max(self.num, 1)) ** _RUN
        return self.num_runs_in_order > (by_chance + _PATCHY_SHARE) * self.num_runs

    @property
    def is_torn(self) -> bool:
        """Whether some boxes are inverted, of too few to tell why."""
        return self.num_inverted > 0 and self.num < _MIN_BOXES and self.num_sized < MIN_SIZED

    @property
    def are_normalised(self) -> bool:
        """Whether all coordinates lie in [0, 1]."""
        return self.num >= _MIN_UNIT and self.num_unit == self.num

    @property
    def are_far_out(self) -> bool:
        """Whether so many boxes reach far out of their photos that size, order or photo must be another."""
        return self.num_far_out > _FAR_SHARE * self.num_sized

    @property
    def may_swap(self) -> bool:
        """Whether the inverted boxes are surely corners in the wrong order.

        An inverted box is always a possible [x, y, width, height], and rows of that may be a part of the file. It is
        excluded where a clear share of the inverted boxes would leave its photo so, or any photo, or where all boxes
        of a field are inverted in both axes: no garment in xywh has x > width and y > height throughout. Corners in
        the wrong order are so in all boxes alike; what is inverted now in one axis, now in the other, may be centres.
        """
        num_in_both = self.num_inverted - self.num_in_x - self.num_in_y
        num_alike = num_in_both if self.num_inverted < MIN_SIZED else max(num_in_both, self.num_in_x, self.num_in_y)
        if not self.num_inverted or num_alike < _ALIKE_SHARE * self.num_inverted:
            return False
        if self.num_inverted_sized:
            fit_in_order = self.num_ordered >= 0.9 * self.num_inverted_sized
            return fit_in_order and self.num_inverted_misfits > _MISFIT_SHARE * self.num_inverted_sized
        return self.num_misfits > _MISFIT_SHARE * self.num_inverted or (
            self.num >= _MIN_BOXES and num_in_both >= 0.99 * self.num
        )

    def as_xywh(self, certainty: Certainty) -> str:
        """What the boxes look like if they are not surely corners, and why."""
        is_sure = certainty == "surely"
        if self.num_sized >= MIN_SIZED:
            reason = (
                f"read so, {self.num_xywh / self.num_sized:.1%} lie in their photos, "
                f"and {self.num_xyxy / self.num_sized:.1%} as [x1, y1, x2, y2]"
            )
        else:
            reason = f"{self.num_inverted / self.num:.1%} have x2 < x1 or y2 < y1"
        if self.may_be_centres and not is_sure:
            other = f"or [centre x, centre y, width, height], as which {self.num_centred / self.num:.1%} are possible, "
            remedy = "--fix leaves them: convert them yourself"
        else:
            other = ""
            remedy = "--fix converts them" if is_sure else "--fix leaves them, unless the photos of --data decide"
        return (
            f"the boxes {'' if is_sure else 'may '}look like [x, y, width, height], {other}"
            f"but [x1, y1, x2, y2] is due: {reason}; {remedy}"
        )

    def as_inverted(self) -> str:
        """The readings of inverted boxes that are left as they are."""
        what = f"{self.num_inverted:,} of {self.num:,} boxes have x2 < x1 or y2 < y1"
        if not self.num_inverted_sized:
            return (
                f"{what}: either corners in the wrong order or [x, y, width, height] in these rows; the photo sizes of "
                "--data decide, without them --fix leaves these boxes"
            )
        fits = 1 - self.num_inverted_misfits / self.num_inverted_sized
        if fits >= 1 - _MISFIT_SHARE:
            return (
                f"{what}, of which {fits:.1%} lie in their photos if read as [x, y, width, height]: these rows look "
                "like it; --fix leaves them, since in the others the boxes are [x1, y1, x2, y2]"
            )
        return (
            f"{what}: corners in the wrong order, [x, y, width, height] and centres are all possible; --fix leaves them"
        )
