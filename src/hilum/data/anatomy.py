"""Turns a person and a visit into what a beam of X-rays meets: maps of air, soft tissue and bone in centimetres.

Outlines live in body coordinates (u, v): u = 0 is the spine and u = 1 the patient's left inner chest wall (on the
image's right), v = 0 is the top of the lungs and v = 1 about the top of the diaphragm. Proportions follow adult
frontal radiographs; they are drawn by hand and stand for nobody.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Map = NDArray[np.float32]

CM_PER_UNIT = 14.0
"""Half the inner width of an adult chest: one unit of u."""

TALL = 1.7
"""About how many units of u are as long as one of v."""

CIRCLE = np.stack(
    [np.cos(np.linspace(0, 2 * np.pi, 33)[:-1]), np.sin(np.linspace(0, 2 * np.pi, 33)[:-1])], axis=1
)

CATMULL_ROM = (
    0.5
    * ((np.arange(8) / 8)[:, None] ** np.arange(4))
    @ np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]])
)
"""(8, 4): weights of four neighbouring knots for eight points between the middle two."""


@dataclass(frozen=True)
class Person:
    """What stays the same from visit to visit; lengths in body coordinates unless another unit is given."""

    sex: str
    age: float
    half_width: float  # of the chest, as a fraction of the image
    height: float  # of the lungs, as a fraction of the image
    girth: float  # soft tissue outside the rib cage
    depth: float  # front to back, in cm
    heart_ratio: float  # cardiothoracic ratio in health
    heart_left: float  # the part of the heart left of the spine
    aorta: float
    scoliosis: float
    bone: float  # mineral, relative
    breast: float
    rib_slope: float
    rib_width: float
    domes: tuple[float, float]  # height of the right and the left diaphragm above v = 1
    shoulder: float
    vessel_seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator, *, sex: str, age: float) -> "Person":
        """Draw a person of this sex and age."""
        old = np.clip((age - 20) / 65, 0, 1)
        bend = rng.normal(0, 0.02) + (rng.random() < 0.12) * rng.choice([-1, 1]) * rng.uniform(0.05, 0.10)
        raised = (rng.random() < 0.15) * rng.uniform(0.05, 0.13)
        domes = np.array([0.03, 0.0]) + rng.normal(0, 0.018, 2) + rng.permutation([raised, 0.0])
        half_width = rng.uniform(0.30, 0.42) - 0.01 * (sex == "F")
        return cls(
            sex=sex,
            age=age,
            half_width=half_width,
            height=min(0.70, half_width * rng.uniform(1.45, 1.90)),
            girth=rng.uniform(0.10, 0.30),
            depth=rng.uniform(19, 26),
            heart_ratio=rng.uniform(0.45, 0.50) + 0.01 * old,
            heart_left=rng.uniform(0.55, 0.78),
            aorta=rng.uniform(0.08, 0.11) + 0.035 * old,
            scoliosis=bend,
            bone=rng.uniform(0.85, 1.15) - 0.25 * old,
            breast=rng.uniform(0.3, 1.0) if sex == "F" else 0.0,
            rib_slope=rng.uniform(0.8, 1.25),
            rib_width=rng.uniform(0.9, 1.15),
            domes=(float(domes[0]), float(domes[1])),
            shoulder=rng.uniform(-0.08, 0.10),
            vessel_seed=int(rng.integers(2**32)),
        )


@dataclass(frozen=True)
class Visit:
    """What changes between two radiographs of one person."""

    view: str
    matrix: NDArray[np.float64]  # (2, 3): body coordinates to fractions of the image
    inspiration: float  # added to the height of both diaphragms, positive is a shallower breath
    heart_ratio: float  # cardiothoracic, in this view
    turn: float  # about the long axis, -1 to 1
    haze: float  # share of the lung that is not air
    gas: float  # stomach bubble, 0 none
    arms: float  # how far the arms are from the trunk

    @classmethod
    def draw(cls, rng: np.random.Generator, person: Person, *, view: str) -> "Visit":
        """Draw how this person was placed before the detector; AP is closer, turned more and breathes less."""
        supine = view == "AP"
        zoom = rng.uniform(0.86, 1.08)
        angle = np.deg2rad(np.clip(rng.normal(0, 3.5 if supine else 2.5), -7, 7))
        # The lungs stay in the picture, anywhere in it.
        aside = min(0.13, 0.49 - zoom * person.half_width) * rng.uniform(-1, 1)
        above = 0.03 + rng.uniform(0, 0.85) * (0.95 - 1.17 * zoom * person.height)
        centre = np.array([0.5 + aside, above + 0.55 * zoom * person.height])
        axes = np.array([[person.half_width, 0], [0, person.height]]) * zoom
        turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ axes
        origin = centre - turned @ np.array([0, 0.55])
        return cls(
            view=view,
            matrix=np.column_stack([turned, origin]),
            inspiration=float(rng.normal(0.06 if supine else 0.0, 0.035)),
            heart_ratio=person.heart_ratio + supine * rng.uniform(0.0, 0.01),
            turn=float(np.clip(rng.normal(0, 0.5 if supine else 0.3), -1, 1)),
            haze=rng.uniform(0.19, 0.29) + 0.03 * supine,
            gas=float(rng.random() < 0.55) * rng.uniform(0.5, 1.0),
            arms=rng.uniform(0.0, 0.5),
        )


class Canvas:
    """Carries body coordinates to pixels and fills outlines there."""

    def __init__(self, size: int, matrix: NDArray[np.float64]) -> None:
        self.size = size
        self.matrix = matrix * size
        self.unit = float(np.hypot(*self.matrix[:, 0]))

    def pixels(self, points: Points) -> NDArray[np.float64]:
        """Carry (n, 2) body coordinates to (n, 2) pixels, x before y."""
        return points @ self.matrix[:, :2].T + self.matrix[:, 2] - 0.5

    def fill(self, *outlines: Points) -> NDArray[np.uint8]:
        """Fill closed outlines: uint8 (size, size), 255 inside, edges smoothed."""
        mask = np.zeros((self.size, self.size), np.uint8)
        corners = np.rint(self.pixels(np.concatenate(outlines)) * 16).astype(np.int32)
        start = 0
        # One by one: together, what overlaps would be left empty.
        for outline in outlines:
            cv2.fillPoly(mask, [corners[start : start + len(outline)]], 255, cv2.LINE_AA, 4)
            start += len(outline)
        return mask

    def cover(self, *outlines: Points, blur: float = 0.0) -> Map:
        """Fill closed outlines: float32 (size, size) in [0, 1], softened by `blur` units."""
        return self.soften(self.fill(*outlines).astype(np.float32) / np.float32(255), blur)

    def rounded(self, outlines: list[Points], radius: float, blur: float = 0.01) -> Map:
        """Return the thickness of bodies with round edges of `radius`: float32 (size, size) in [0, 1]."""
        inside = cv2.threshold(self.fill(*outlines), 127, 255, cv2.THRESH_BINARY)[1]
        distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
        depth = 1 - np.minimum(distance / np.float32(radius * self.unit), 1)
        return self.soften(np.sqrt(1 - depth * depth).astype(np.float32), blur)

    def soften(self, image: Map, blur: float) -> Map:
        """Blur by a Gaussian of `blur` units."""
        sigma = blur * self.unit
        return cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0.3 else image  # type: ignore[return-value]


@dataclass
class Layers:
    """One chest as maps, each float32 (size, size); findings change them before the beam passes."""

    canvas: Canvas
    body: Map  # cm of trunk, front to back
    lung: Map  # cm of lung in it
    tissue: Map  # share of the lung that is not air
    vessels: Map  # cm of blood in the lung's vessels
    extra: Map  # cm of soft tissue besides; negative is air
    bone: Map  # cm of bone
    sides: dict[int, Map]  # 1 inside the outline of the right (-1) and the left (1) lung
    heart: Points  # its outline, in body coordinates
    cavity: Map  # cm of lung if there were no heart in its way
    branches: Map  # cm of blood in the vessels, those before and behind the heart included
    person: Person
    visit: Visit

    def place_heart(self, ratio: float) -> None:
        """Draw the heart, `ratio` of the chest wide, in place of the one that was there."""
        canvas = self.canvas
        self.heart = heart_outline(self.person, self.visit, ratio)
        solid = 0.85 * canvas.rounded([self.heart], 0.25, blur=0.012)
        solid = np.maximum(
            solid, 0.62 * canvas.rounded([aorta_outline(self.person, self.visit)], 0.10, blur=0.008)
        )
        solid = np.maximum(solid, 0.30 * canvas.cover(descending_aorta(self.person, self.visit), blur=0.01))
        self.lung = self.cavity * (1 - solid)
        self.vessels = self.branches * np.clip(self.lung / 9, 0, 1)


def layers(person: Person, visit: Visit, *, size: int, rng: np.random.Generator) -> Layers:
    """Build the maps of a chest without findings.

    Args:
        person: Whose chest.
        visit: How it stood before the detector.
        size: Side of the maps in pixels.
        rng: For the texture of the lung.
    """
    canvas = Canvas(size, visit.matrix)
    outlines = {side: lung_outline(person, visit, side) for side in (-1, 1)}
    trunk = canvas.rounded([trunk_outline(person), ellipse((0, -1.0), 0.62, 0.52)], 0.34, blur=0.012)
    arms = canvas.rounded([tube(arm_axis(person, visit, side), 0.56) for side in (-1, 1)], 0.20, blur=0.01)
    body = np.maximum(person.depth * trunk * depth_profile(canvas), 18 * arms)
    # Lung also lies in the gutter behind the diaphragm, so that the dome is an edge and not an end.
    gutters = [lung_outline(person, visit, side, lower=0.13) for side in (-1, 1)]
    cavity = 0.10 * person.depth * canvas.rounded(gutters, 0.20, blur=0.03)
    for side, outline in outlines.items():
        thickness = 0.66 * person.depth * (1 + 0.10 * side * visit.turn)
        cavity = np.maximum(cavity, thickness * canvas.rounded([outline], 0.42, blur=0.008))
    extra = 0.22 * fractal_noise(rng, size, coarsest=4, octaves=4) - airway(canvas, person, visit)
    if person.breast:
        breasts = canvas.rounded([breast_outline(person, side) for side in (-1, 1)], 0.40, blur=0.02)
        extra += (1.0 + 3.0 * person.breast) * breasts
    else:
        extra += 1.2 * canvas.rounded([pectoral_outline(side) for side in (-1, 1)], 0.4, blur=0.05)
    branches = vessels(canvas, person, visit)
    if visit.gas:
        bubble = canvas.rounded([stomach_outline(person, visit)], 0.10, blur=0.01)
        extra -= 7 * visit.gas * bubble * (1 - np.clip(cavity / 2, 0, 1))
    chest = Layers(
        canvas=canvas,
        body=body,
        lung=cavity,
        tissue=visit.haze + 0.02 * fractal_noise(rng, size, coarsest=8),
        vessels=branches,
        extra=extra,
        bone=bones(canvas, person, visit),
        sides={side: canvas.cover(outline, blur=0.004) for side, outline in outlines.items()},
        heart=np.empty((0, 2)),
        cavity=cavity,
        branches=branches,
        person=person,
        visit=visit,
    )
    chest.place_heart(visit.heart_ratio)
    return chest


def depth_profile(canvas: Canvas) -> Map:
    """Return how deep the trunk is from neck to belly, relative: float32 (size, 1)."""
    rows = np.linspace(0, 1, canvas.size) * canvas.size
    v = (rows - canvas.matrix[1, 2]) / canvas.matrix[1, 1]
    depth = np.interp(v, [-0.5, -0.15, 0.05, 0.35, 0.9, 1.3], [0.74, 0.80, 0.88, 0.96, 1.0, 1.08])
    column: Map = depth.astype(np.float32)[:, None]
    return column


def fractal_noise(rng: np.random.Generator, size: int, *, coarsest: int, octaves: int = 9) -> Map:
    """Noise whose amplitude falls as 1 / frequency: float32 (size, size), standard deviation about 1."""
    total = np.zeros((size, size), np.float32)
    power = 0.0
    for octave in range(octaves):
        cells = coarsest * 2**octave
        if cells > size:
            break
        grid = rng.standard_normal((cells, cells), dtype=np.float32)
        total += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) * np.float32(0.5**octave)
        power += 0.25**octave
    return total / np.float32(np.sqrt(power))


# Outlines: (n, 2) arrays of u, v, closed where they are filled.


def lung_outline(
    person: Person, visit: Visit, side: int, *, inset: float = 0.0, lower: float = 0.0
) -> Points:
    """Return the outline of one lung; `inset` draws it back from the wall, `lower` extends it behind the diaphragm."""
    top = dome(person, visit, side) + lower
    wall = spline(
        [(0.13, 0.20), (0.17, 0.07), (0.34, 0.0), (0.55, 0.07), (0.73, 0.22), (0.87, 0.42), (0.955, 0.64)]
    )
    angle = (0.965 - 0.02 * lower, top + 0.15)
    side_wall = spline([(0.955, 0.64), (0.99, 0.64 + 0.5 * (top - 0.54)), angle])
    across = np.linspace(angle[0], 0.10, 24)
    lateral = np.clip((across - 0.48) / (angle[0] - 0.48), 0, 1)
    medial = np.clip((0.48 - across) / 0.38, 0, 1)
    floor = np.column_stack([across, top + 0.15 * lateral**2.2 + 0.05 * medial**2])
    inner = spline([(0.10, top + 0.05), (0.09, 0.65), (0.12, 0.40), (0.15, 0.28), (0.13, 0.20)])
    outline = np.concatenate([wall, side_wall, floor, inner])
    if inset:
        u, v = outline[:, :1], outline[:, 1:]
        away = np.hypot(np.clip((u - 0.15) / 0.6, 0, None), np.clip((0.5 - v) / 0.45, 0, None))
        base = np.clip((top + 0.02 - v) / 0.35, 0, 1)
        outline = outline + np.tanh(1.5 * away) * base * inset * (np.array([0.22, 0.55]) - outline)
    return midline(person, outline * np.array([side, 1]))


def dome(person: Person, visit: Visit, side: int) -> float:
    """Return the v of the top of one diaphragm."""
    return 1.0 - person.domes[0 if side < 0 else 1] - visit.inspiration


def heart_outline(person: Person, visit: Visit, ratio: float) -> Points:
    """Return the heart and the great vessels above it, as wide as `ratio` of the chest."""
    left, right = 2 * ratio * person.heart_left, 2 * ratio * (1 - person.heart_left)
    base = (dome(person, visit, -1) + dome(person, visit, 1)) / 2 + 0.02
    high = 0.40  # where the great vessels enter

    def at(u: float, share: float) -> tuple[float, float]:
        return u, high + (base - high) * share

    outline = spline(
        [
            (-0.17, 0.12),
            (-0.20, 0.32),
            at(-0.21, 0.12),
            at(-0.90 * right, 0.38),
            at(-right, 0.62),
            at(-0.88 * right, 0.90),
            at(-0.3 * right, 1.10),
            at(0.45 * left, 1.14),
            at(0.86 * left, 1.06),
            at(left, 0.86),
            at(0.97 * left, 0.66),
            at(0.84 * left, 0.42),
            at(0.56 * left, 0.16),
            (0.22, 0.36),
            (0.18, 0.12),
        ],
        closed=True,
    )
    return midline(person, outline + np.array([0.09 * visit.turn, 0]))


def aorta_outline(person: Person, visit: Visit) -> Points:
    """Return the aortic knob."""
    return midline(person, ellipse((0.15 + 0.04 * visit.turn, 0.27), person.aorta, 1.15 * person.aorta))


def descending_aorta(person: Person, visit: Visit) -> Points:
    """Return the descending aorta, beside the spine."""
    shift = 0.03 * visit.turn
    return midline(person, tube(spline([(0.15 + shift, 0.28), (0.15 + shift, 0.5), (0.06, 1.05)]), 0.17))


def trunk_outline(person: Person) -> Points:
    """Neck, shoulders and trunk."""
    flank, neck = 1.10 + person.girth, 0.42 + 0.4 * person.girth
    shoulder = person.shoulder
    half = spline(
        [
            (neck, -1.0),
            (neck, -0.30),
            (neck + 0.15, -0.18),
            (1.0, -0.10 + shoulder),
            (1.45, 0.02 + shoulder),
            (1.55, 0.18 + shoulder),
            (1.28 + 0.5 * person.girth, 0.36),
            (flank + 0.04, 0.52),
            (flank, 0.75),
            (flank - 0.02, 1.0),
            (flank - 0.04, 3.5),
        ]
    )
    return np.concatenate([half, half[::-1] * np.array([-1, 1])])


def arm_axis(person: Person, visit: Visit, side: int) -> Points:
    """Return the centre line of one upper arm."""
    line = [
        (1.40, 0.10 + person.shoulder),
        (1.58 + 0.1 * visit.arms, 0.5),
        (1.62 + 0.4 * visit.arms, 1.2),
        (1.66 + 0.6 * visit.arms, 3.0),
    ]
    axis: Points = spline(line) * np.array([side, 1])
    return axis


def breast_outline(person: Person, side: int) -> Points:
    """Return one breast."""
    size = person.breast
    return ellipse((side * (0.56 + 0.06 * size), 0.66 + 0.14 * size), 0.36 + 0.12 * size, 0.26 + 0.09 * size)


def pectoral_outline(side: int) -> Points:
    """Return one pectoral muscle."""
    return ellipse((side * 0.75, 0.30), 0.50, 0.26)


def stomach_outline(person: Person, visit: Visit) -> Points:
    """Return the gas in the stomach, flat below where the fluid stands."""
    top = dome(person, visit, 1) + 0.055
    return spline(
        [(0.24, top + 0.07), (0.33, top + 0.01), (0.50, top), (0.62, top + 0.06), (0.43, top + 0.085)],
        closed=True,
    )


def airway(canvas: Canvas, person: Person, visit: Visit) -> Map:
    """Trachea and main bronchi, in cm of air."""
    shift = 0.06 * visit.turn - 0.01
    fork = (shift, 0.33)
    trachea = tube(np.array([(0.5 * shift, -0.4), (shift, 0.0), fork]), 0.11)
    bronchi = [tube(np.array([fork, (shift + u, v)]), 0.075) for u, v in ((-0.19, 0.44), (0.21, 0.43))]
    above = canvas.cover(midline(person, trachea), blur=0.018)
    below = canvas.cover(*(midline(person, bronchus) for bronchus in bronchi), blur=0.02)
    return 1.5 * above + 0.9 * below * (1 - above)


def bones(canvas: Canvas, person: Person, visit: Visit) -> Map:
    """Spine, ribs, clavicles, shoulder blades and upper arms, in cm of bone."""
    back, front = [], []
    for number in range(11):
        for side in (-1, 1):
            rear, fore = rib(person, visit, number, side)
            back.append((rear, 0.072 * person.rib_width))
            front.append((fore, 0.080 * person.rib_width))
    total = 0.80 * hollow(canvas, back) + 0.55 * hollow(canvas, front[2:16])
    total += 1.5 * hollow(canvas, [(clavicle(person, visit, side), 0.085) for side in (-1, 1)])
    blades, borders, arms = [], [], []
    for side in (-1, 1):
        blade, border, ridge = scapula(person, visit, side)
        blades.append(blade)
        borders += [tube(border, 0.05), tube(ridge, 0.06)]
        head = ellipse((1.36, 0.09 + person.shoulder), 0.14, 0.085)
        arms += [tube(arm_axis(person, visit, side), 0.12), head * np.array([side, 1])]
    total += 0.45 * canvas.cover(*blades) + 0.7 * canvas.cover(*borders) + 1.8 * canvas.cover(*arms)
    return canvas.soften((total + vertebrae(canvas, person)) * np.float32(person.bone), 0.009)


def rib(person: Person, visit: Visit, number: int, side: int) -> tuple[Points, Points]:
    """Return the centre lines of one rib's rear and front arc."""
    start = 0.01 + 0.092 * number
    slope = person.rib_slope * (1 - 0.4 * (visit.view == "AP"))
    drop = slope * (0.05 + 0.016 * number)
    reach = float(
        np.interp(
            start + drop, [0.0, 0.08, 0.2, 0.4, 0.65, 0.85, 1.2], [0.44, 0.58, 0.74, 0.88, 0.98, 1.01, 1.0]
        )
    )
    rear = [
        (0.08, start),
        (0.08 + 0.22 * reach, start - 0.018),
        (0.08 + 0.60 * reach, start + 0.25 * drop),
        (0.96 * reach, start + 0.75 * drop),
        (reach + 0.02, start + drop + 0.03),
    ]
    fall = slope * (0.13 + 0.012 * number)
    fore = [
        (reach + 0.02, start + drop + 0.03),
        (0.97 * reach, start + drop + 0.07),
        (0.80 * reach, start + drop + 0.05 + 0.6 * fall),
        (max(0.28, 0.5 * reach), start + drop + 0.06 + fall),
    ]
    mirror = np.array([side, 1])
    return midline(person, spline(rear) * mirror), midline(person, spline(fore) * mirror)


def clavicle(person: Person, visit: Visit, side: int) -> Points:
    """Return the centre line of one clavicle."""
    lift = 0.05 * (visit.view == "AP") - 0.3 * person.shoulder
    inner = side * 0.13 + 0.07 * visit.turn
    outer = side * np.array([0.34, 0.68, 1.02, 1.26])
    heights = np.array([0.105, 0.045, -0.005 + 0.6 * person.shoulder, 0.0 + person.shoulder])
    return spline(
        [(inner, 0.14 - lift), *zip(outer, heights - lift * np.array([0.9, 0.6, 0.2, 0]), strict=True)]
    )


def scapula(person: Person, visit: Visit, side: int) -> tuple[Points, Points, Points]:
    """Return one shoulder blade: its outline, its lateral border and its spine."""
    away = 0.10 * (visit.view == "PA") + 0.05 * visit.arms
    mirror = np.array([side, 1])
    inner = [(0.84 + away, 0.05), (0.82 + away, 0.25), (0.98 + away, 0.50)]
    outer = [(0.98 + away, 0.50), (1.10 + away, 0.30), (1.26, 0.12 + person.shoulder)]
    blade = np.concatenate([spline(inner), spline(outer)])
    ridge = [(0.84 + away, 0.10), (1.05, 0.05), (1.36, -0.01 + person.shoulder)]
    return blade * mirror, spline(outer) * mirror, spline(ridge) * mirror


def vertebrae(canvas: Canvas, person: Person) -> Map:
    """Return the spine in cm of bone: bodies, pedicles and spinous processes."""
    pitch = 0.083
    tops = np.arange(-0.84, 2.4, pitch)[:, None]
    wide = 0.092 + 0.02 * np.clip(tops, -0.2, 1.2)

    def row(
        shape: Points, across: float | NDArray[np.float64], down: float, u: float = 0.0, v: float = 0.0
    ) -> Points:
        """Return the same shape at every vertebra: (vertebrae, corners, 2); u in half widths, v in pitches."""
        return midline(
            person,
            np.stack([wide * u + across * shape[:, 0], tops + pitch * v + down * shape[:, 1]], axis=-1),
        )

    box = np.array([(-1, 0.06), (-0.9, 0.5), (-1, 0.92), (1, 0.92), (0.9, 0.5), (1, 0.06)])
    posts = [
        *row(CIRCLE, 0.022, 0.022, -0.62, 0.4),
        *row(CIRCLE, 0.022, 0.022, 0.62, 0.4),
        *row(CIRCLE, 0.018, 0.03, 0, 0.75),
    ]
    return 0.75 * canvas.cover(*row(box, wide, pitch)) + 0.5 * canvas.cover(*posts)


def vessels(canvas: Canvas, person: Person, visit: Visit) -> Map:
    """Return the vessels of both lungs, branching from the hila, in cm of blood."""
    rng = np.random.default_rng(person.vessel_seed)
    drawing = np.zeros((canvas.size, canvas.size), np.uint8)
    roots = []
    for side in (-1, 1):
        hilum = np.array([side * (0.24 + 0.02 * side * visit.turn), 0.47 if side < 0 else 0.44])
        angles = np.deg2rad(np.linspace(-80, 85, 8) + rng.normal(0, 7, 8))
        length = np.array([0.13, 0.13, 0.14, 0.15, 0.17, 0.18, 0.19, 0.19])[:, None]
        heading = np.column_stack([side * np.cos(angles), 0.62 * np.sin(angles)])
        roots.append((np.repeat(hilum[None], 8, axis=0), heading, length))
    start, heading, length = (np.concatenate(part) for part in zip(*roots, strict=True))
    width = np.full(len(start), 0.050)
    for _ in range(6):
        middle = start + 0.5 * length * heading
        bent = _turned(heading, rng.normal(0, 0.18, len(start)))
        end = middle + 0.5 * length * bent
        _draw_branches(canvas, drawing, midline(person, np.stack([start, middle, end], 1)), width)
        spread = rng.uniform(0.22, 0.50, len(start))
        start = np.repeat(end, 2, axis=0)
        heading = _turned(np.repeat(bent, 2, axis=0), np.column_stack([spread, -spread]).ravel())
        length = np.repeat(length, 2, axis=0) * rng.uniform(0.62, 0.95, (len(start), 1))
        width = np.repeat(width, 2) * np.tile(rng.permutation([0.82, 0.62]), len(width))
    hila = [midline(person, ellipse((side * 0.21, 0.46), 0.075, 0.085)) for side in (-1, 1)]
    return 3.2 * canvas.soften(drawing.astype(np.float32) / np.float32(255), 0.006) + 0.9 * canvas.cover(
        *hila, blur=0.05
    )


def _turned(heading: Points, angle: NDArray[np.float64]) -> Points:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.column_stack(
        [cosine * heading[:, 0] - sine * heading[:, 1], sine * heading[:, 0] + cosine * heading[:, 1]]
    )


def _draw_branches(
    canvas: Canvas, drawing: NDArray[np.uint8], branches: Points, width: NDArray[np.float64]
) -> None:
    """Draw polylines of one generation; what is thinner than a pixel becomes fainter instead."""
    lines = np.rint(canvas.pixels(branches.reshape(-1, 2)) * 16).astype(np.int32).reshape(branches.shape)
    for wide in np.unique(width):
        pixels = wide * canvas.unit
        grey = 255 * min(1.0, (wide / 0.05) ** 0.8) * min(1.0, pixels)
        cv2.polylines(drawing, list(lines[width == wide]), False, grey, max(1, round(pixels)), cv2.LINE_AA, 4)


def hollow(canvas: Canvas, lines: list[tuple[Points, float]]) -> Map:
    """Return bones with a dense rim along centre lines of given widths: float32 (size, size), about [0, 1]."""
    whole = canvas.fill(*(tube(line, width) for line, width in lines)).astype(np.float32)
    core = canvas.fill(*(tube(line, 0.5 * width) for line, width in lines)).astype(np.float32)
    bone: Map = ((whole - 0.40 * core) / 255).astype(np.float32, copy=False)
    return bone


def midline(person: Person, points: Points) -> Points:
    """Bend points sideways with the spine."""
    bend = person.scoliosis * np.sin(2.6 * points[..., 1:] - 0.3)
    bent: Points = points + bend * np.array([1.0, 0.0])
    return bent


def tube(line: Points, width: float) -> Points:
    """Return the outline of a band of `width` along a line."""
    along = np.empty_like(line)
    along[1:-1] = line[2:] - line[:-2]
    along[0], along[-1] = line[1] - line[0], line[-1] - line[-2]
    normal = along[:, ::-1] * np.array([-TALL, 1 / TALL])
    normal *= 0.5 * width / np.sqrt(normal[:, :1] ** 2 + (TALL * normal[:, 1:]) ** 2 + 1e-12)
    return np.concatenate([line + normal, (line - normal)[::-1]])


def ellipse(centre: tuple[float, float], across: float, down: float) -> Points:
    """Return an ellipse with these half axes."""
    outline: Points = np.array(centre) + CIRCLE * np.array([across, down])
    return outline


def spline(knots: list[tuple[float, float]], *, closed: bool = False) -> Points:
    """Return a smooth curve through the knots (Catmull-Rom)."""
    ends = (knots[-1:], knots[:2]) if closed else (knots[:1], knots[-1:])
    around = np.array([*ends[0], *knots, *ends[1]])
    windows = around[np.arange(len(around) - 3)[:, None] + np.arange(4)]
    curve: Points = (CATMULL_ROM @ windows).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, around[-1:]])
