"""Patterns, looks and furniture of usual sizes, as tables.

Sizes are what shops sell: they are, with the patterns, what tells a network how far away things
are. Lengths are metres.
"""

from depthbal.data.rooms.builder import Look
from depthbal.data.rooms.scene import Pattern

PATTERNS = {
    "plain": Pattern(),
    "plaster": Pattern(0.04, 0.04, tone=0.08),
    "checker": Pattern(0.25, 0.25, check=1.0),
    "stripes": Pattern(0.10, 100.0, check=1.0),
    "bricks": Pattern(0.24, 0.08, joint=0.01, tone=0.5, shift=0.5),
    "planks": Pattern(1.20, 0.14, joint=0.006, tone=0.4, shift=0.37),
    "tiles": Pattern(0.30, 0.30, joint=0.01, tone=0.16),
    "mosaic": Pattern(0.10, 0.10, joint=0.006, tone=0.16),
    "panels": Pattern(0.45, 100.0, joint=0.012),
    "books": Pattern(0.04, 100.0, tone=1.2, mix=1.0),
    "carpet": Pattern(0.03, 0.03, tone=0.3, mix=0.3),
    "poster": Pattern(0.08, 0.08, tone=0.8, mix=1.0),
}
_BROWN = (1.0, 0.68, 0.38)
LOOKS = {
    "wall": Look("plaster bricks stripes tiles mosaic checker", (0.3, 0.8), 0.3, accent=0.65),
    "floor": Look("tiles tiles checker carpet", (0.1, 0.55), 0.3),
    "parquet": Look("planks", (0.1, 0.5), 0.15, _BROWN, accent=0.1),
    "ceiling": Look("plain plain plaster tiles", (0.6, 0.85), 0.05, accent=0.6),
    "wood": Look("plain plain planks", (0.08, 0.5), 0.15, _BROWN, accent=0.1),
    "frame": Look("plain", (0.1, 0.85), 0.05),
    "thing": Look("plain", (0.02, 0.6), 0.6),
    "cloth": Look("plain plain carpet stripes checker", (0.04, 0.7), 0.6),
    "doors": Look("panels", (0.1, 0.8), 0.3, accent=0.04),
    "books": Look("books", (0.1, 0.5), 0.9),
    "stone": Look("bricks mosaic plaster stripes", (0.25, 0.75), 0.15, accent=0.6),
    "leaf": Look("carpet", (0.06, 0.25), 0.2, (0.5, 1.0, 0.3), accent=0.3),
    "poster": Look("poster", (0.1, 0.6), 0.8),
    "glass": Look("plain", (0.9, 1.0), 0.05, (0.8, 0.9, 1.0), glow=(0.8, 3.5)),
    "lamp": Look("plain", (0.9, 1.0), 0.05, (1.0, 0.9, 0.7), glow=(0.5, 4.0)),
}
FURNITURE = """\
table 0.9 1.8  0.70 0.78  0.6 0.9
    wood  -1 1  0.95 1  -1 1
    wood  0.92 1  0 0.95  0.85 1  xz
    thing  -0.5 0  1 1.45  0 0.3
chair 0.42 0.48  0.84 0.96  0.42 0.48
    wood  -1 1  0.46 0.5  -1 1
    wood  -1 1  0.5 1  0.86 1
    wood  0.82 1  0 0.46  0.82 1  xz
shelf 0.6 1.6  0.9 2.0  0.28 0.34
    wood  0.95 1  0 1  -1 1  x
    wood  -1 1  0 1  0.92 1
    wood  -1 1  0 0.03  -1 1
    wood  -1 1  0.32 0.35  -1 1
    wood  -1 1  0.65 0.68  -1 1
    wood  -1 1  0.97 1  -1 1
    books  -0.95 0.6  0.03 0.25  -0.6 1
    books  -0.3 0.95  0.35 0.56  -0.6 1
    books  -0.95 0.9  0.68 0.9  -0.6 1
cupboard 0.3 2.0  0.75 2.20  0.4 0.6
    doors  -1 1  0 1  -1 1
kitchen 1.2 3.7  2.10 2.10  0.6 0.64
    doors  -1 1  0 0.41  -0.88 1
    frame  -1 1  0.41 0.43  -1 1
    stone  -1 1  0.43 0.69  0.94 1
    doors  -1 1  0.69 1  -0.1 1
sofa 0.85 2.3  0.78 0.88  0.85 0.95
    cloth  -1 1  0.06 0.5  -1 1
    cloth  -1 1  0.5 1  0.55 1
    cloth  0.84 1  0.5 0.74  -0.95 0.6  x
    poster  -0.55 -0.1  0.5 0.92  0.2 0.55
bed 0.9 1.8  0.85 1.10  2.0 2.1
    wood  -1 1  0.05 0.3  -1 1
    cloth  -0.97 0.97  0.3 0.5  -0.98 0.95
    frame  -0.7 0.7  0.5 0.6  0.5 0.9
    wood  -1 1  0.05 1  0.95 1
crates 0.4 0.6  0.8 1.40  0.35 0.5
    wood  -1 0.9  0 0.35  -1 1
    wood  -0.8 1  0.35 0.7  -0.9 0.8
    wood  -0.7 0.7  0.7 1  -0.9 0.9
lamp 0.3 0.4  1.5 1.70  0.3 0.4
    thing  -0.8 0.8  0 0.02  -1 1  pole
    thing  -0.1 0.1  0.02 0.85  -1 1  pole
    lamp  -1 1  0.82 1  -1 1  pole
plant 0.4 0.8  1.0 1.50  0.4 0.8
    thing  -0.5 0.5  0 0.22  -1 1  pole
    wood  -0.06 0.06  0.22 0.7  -1 1  pole
    leaf  -1 1  0.55 1  -1 1  ball
stool 0.28 0.48  0.3 0.60  0.28 0.48
    cloth  -1 1  0 1  -1 1  pole
pillar 0.25 0.5  4.0 4.00  0.25 0.5
    stone  -1 1  0 1  -1 1
column 0.25 0.55  4.0 4.00  0.25 0.55
    stone  -1 1  0 1  -1 1  pole
window 0.7 2.0  2.1 2.10  0.05 0.05
    frame  -1 1  0.43 1  0 1
    glass  -0.95 0.95  0.45 0.98  -0.3 1
    frame  -0.02 0.02  0.43 1  -1 1
picture 0.4 1.1  1.6 2.0  0.04 0.04
    frame  -1 1  0.6 1  0 1
    poster  -0.93 0.93  0.63 0.97  -0.3 1
door 0.85 0.85  2.0 2.0  0.04 0.04
    frame  -1 1  0 1  -0.3 1
    wood  -0.9 0.9  0 0.96  -1 1
"""
