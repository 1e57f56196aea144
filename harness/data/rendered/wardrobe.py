"""Which garments exist: the identity that (pair id, style) stands for, and how identities look alike.

Colours are BGR tuples of integers in 0–255, as OpenCV wants them. Lengths are in body units: the
distance from the shoulders to the hips is about 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

Colour = tuple[int, int, int]

PALETTES: tuple[tuple[Colour, Colour, Colour], ...] = (
    ((92, 52, 30), (228, 226, 222), (52, 48, 190)),  # navy, off-white, red
    ((42, 40, 40), (205, 205, 205), (120, 120, 120)),  # black, light grey, grey
    ((60, 58, 178), (216, 222, 236), (50, 44, 60)),  # red, cream, dark plum
    ((84, 118, 62), (196, 222, 214), (40, 70, 120)),  # green, pale olive, brown
    ((196, 150, 96), (240, 232, 224), (70, 60, 50)),  # sky, white, slate
    ((70, 172, 226), (60, 74, 96), (236, 240, 240)),  # mustard, brown, white
    ((168, 132, 214), (236, 226, 240), (110, 60, 120)),  # pink, pale pink, purple
    ((104, 132, 164), (60, 76, 98), (220, 226, 232)),  # tan, brown, cream
    ((138, 128, 34), (192, 216, 244), (62, 48, 40)),  # teal, peach, dark blue
    ((58, 32, 112), (206, 198, 186), (84, 168, 212)),  # burgundy, pale blue, gold
)
"""Base, second and accent colour. Few on purpose: colour alone must not name a garment."""

PATTERNS: tuple[str, ...] = (
    "plain",
    "stripes",
    "check",
    "plaid",
    "dots",
    "diamonds",
    "zigzag",
    "floral",
    "blotches",
    "gradient",
    "print",
)
MOTIFS: tuple[str, ...] = ("disc", "ring", "star", "heart", "triangle", "bars", "cross", "bolt")
PANELS: tuple[str, ...] = ("none", "none", "yoke", "band", "centre", "sides", "sash", "half", "belt", "sleeves")
"""A panel changes a garment's layout but hardly its colours; ``none`` twice makes it a fifth."""
NECKLINES: tuple[str, ...] = ("round", "v", "square", "boat", "high", "shirt")

SHORT_SLEEVED = (1, 3, 10)
LONG_SLEEVED = (2, 4, 11)
SLEEVED = SHORT_SLEEVED + LONG_SLEEVED
OUTWEAR = (3, 4)
SLINGS = (6, 13)
VESTS = (5, 12)
DRESSES = (10, 11, 12, 13)
BOTTOMS = (7, 8, 9)
TOPS = (1, 2, 5, 6)


@dataclass(frozen=True)
class Garment:
    """One identity: everything about a garment that does not change from photo to photo.

    Attributes:
        category_id: 1–13.
        palette: base, second and accent colour.
        pattern, motif, neckline: members of `PATTERNS`, `MOTIFS`, `NECKLINES`.
        repeats: periods of the pattern per body unit.
        direction: quarter of the half turn the pattern runs in: 0 across, 1 rising, 2 along, 3 falling.
        duty: share of the second colour in a period, in (0, 1).
        panel: member of `PANELS`: a plain field over part of the cloth.
        panel_colour: its colour, 1 the second or 2 the accent.
        sleeve: sleeve length as a share of the arm.
        hem: where the garment ends, in body units below the shoulders (the waist, for bottoms).
        fit: width over the body's, about 1.
        flare: how much wider the hem is than the hips, in body units.
        neck_width, neck_depth: of the neckline, body units.
        strap: half width of the straps of slings and vests, body units.
        buttons, pockets, trim, seam: details that tell look-alikes apart.
        motif_size, motif_x, motif_y: the print's half size and centre, body units.
        seed: decides the placement of flowers and blotches.
    """

    category_id: int
    palette: tuple[Colour, Colour, Colour]
    pattern: str
    motif: str
    neckline: str
    repeats: int
    direction: int
    duty: float
    panel: str
    panel_colour: int
    sleeve: float
    hem: float
    fit: float
    flare: float
    neck_width: float
    neck_depth: float
    strap: float
    buttons: bool
    pockets: int
    trim: bool
    seam: bool
    motif_size: float
    motif_x: float
    motif_y: float
    seed: int


def _choice(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def _palette(rng: np.random.Generator) -> tuple[Colour, Colour, Colour]:
    """One of the palettes, a little off, base and second sometimes swapped."""
    colours = np.array(PALETTES[int(rng.integers(len(PALETTES)))]) + rng.integers(-9, 10, (3, 3))
    colours = colours.clip(12, 246)
    if rng.random() < 0.3:
        colours = colours[[1, 0, 2]]
    base, second, accent = (tuple(int(v) for v in colour) for colour in colours)
    return base, second, accent  # type: ignore[return-value]


_PATTERN_FIELDS = (
    "pattern",
    "motif",
    "repeats",
    "direction",
    "duty",
    "motif_size",
    "motif_x",
    "motif_y",
    "seed",
    "panel",
    "panel_colour",
)


def _hem(rng: np.random.Generator, category_id: int) -> float:
    low, high = {
        3: (0.9, 1.25), 4: (0.95, 1.7), 7: (0.55, 0.88), 8: (1.35, 1.65), 9: (0.62, 1.35),
        10: (1.55, 2.2), 11: (1.55, 2.3), 12: (1.55, 2.3), 13: (1.55, 2.3),
    }.get(category_id, (0.82, 1.08))  # fmt: skip
    return float(rng.uniform(low, high))


def draw_garment(rng: np.random.Generator, category_id: int) -> Garment:
    """A new identity of the category."""
    boat = rng.random() < 0.15
    return Garment(
        category_id=category_id,
        palette=_palette(rng),
        pattern=_choice(rng, PATTERNS),
        motif=_choice(rng, MOTIFS),
        neckline="boat" if boat else _choice(rng, NECKLINES),
        repeats=int(rng.choice([3, 4, 5, 7])),
        direction=int(rng.integers(4)),
        duty=float(rng.choice([0.35, 0.5])),
        panel=_choice(rng, PANELS),
        panel_colour=int(rng.integers(1, 3)),
        sleeve=float(rng.uniform(0.24, 0.42) if category_id in SHORT_SLEEVED else rng.uniform(0.86, 0.99)),
        hem=_hem(rng, category_id),
        fit=float(rng.uniform(0.95, 1.18) if category_id not in OUTWEAR else rng.uniform(1.1, 1.3)),
        flare=float(rng.uniform(0.02, 0.42)),
        neck_width=float(rng.uniform(0.1, 0.17)),
        neck_depth=float(rng.uniform(0.09, 0.26)),
        strap=float(rng.uniform(0.016, 0.03) if category_id in SLINGS else rng.uniform(0.06, 0.11)),
        buttons=bool(rng.random() < 0.3),
        pockets=int(rng.choice([0, 0, 1, 2])),
        trim=bool(rng.random() < 0.35),
        seam=bool(rng.random() < 0.4),
        motif_size=float(rng.uniform(0.11, 0.2)),
        motif_x=float(rng.choice([0.0, 0.0, 0.11, -0.11])),
        motif_y=float(rng.uniform(0.42, 0.62)),
        seed=int(rng.integers(2**31)),
    )


def draw_style(rng: np.random.Generator, garment: Garment) -> Garment:
    """Another style of the same model: same cut, other colour, pattern or print."""
    other = draw_garment(rng, garment.category_id)
    kind = rng.random()
    if kind < 0.35:
        while _distance(other.palette, garment.palette) < 60:
            other = replace(other, palette=_palette(rng))
        return replace(garment, palette=other.palette)
    while other.pattern == garment.pattern:
        other = draw_garment(rng, garment.category_id)
    changed = {name: getattr(other, name) for name in _PATTERN_FIELDS}
    return replace(garment, **changed)


def _distance(a: tuple[Colour, ...], b: tuple[Colour, ...]) -> float:
    """Mean difference of base colours, 0–255 a channel."""
    return float(np.abs(np.array(a[0], dtype=float) - np.array(b[0], dtype=float)).mean())
