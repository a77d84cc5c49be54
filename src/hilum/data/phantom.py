"""Draws synthetic frontal chest radiographs with findings and boxes, so that everything can be tried without patients.

The beam's attenuation is summed along straight lines through the maps of `anatomy`, then scattered, sampled with
noise and developed by a film curve. A finding changes the maps, never the grey values. The pictures teach and test
software; they say nothing about medicine.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hilum import errors
from hilum.data import anatomy
from hilum.data.anatomy import CM_PER_UNIT, TALL, Layers, Map, Person, Visit
from hilum.data.table import BOX_COLUMNS, COLUMNS, Source, Table

VERSION = 2
"""Bumped when the same seed draws another picture."""

MIN_SIZE = 32

Box = tuple[float, float, float, float]
"""x and y of the upper left corner, width and height, in fractions of the picture."""

BOX_TYPES = {name: str if name in ("image", "finding") else float for name in BOX_COLUMNS}

SHARE_AP = 0.4
NUM_VISITS = (0.4, 0.3, 0.2, 0.1)
"""Shares of patients with one, two, three and four images."""

NUM_FINDINGS = (0.40, 0.36, 0.18, 0.06)
"""Shares of images with none, one, two and three findings."""

ENLARGED_HEART = (0.57, 0.61)
"""Cardiothoracic ratios that are called cardiomegaly; those of healthy hearts end at 0.52."""

SOFT, BONE = 0.185, 0.36
"""Attenuation per cm at about 100 kV; that of bone is what it adds to the soft tissue in its place."""


def generate(
    directory: Path,
    *,
    num_images: int,
    size: int = 256,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Table:
    """Draw a data set: 8-bit grey PNG files and the table that describes them.

    Each patient comes one to four times, in other positions and views, and findings come and go. Sex, age and view
    shape the picture but are drawn independently of the findings. What patient p looks like depends on `seed` and p
    alone, so that a larger set begins with the smaller one.

    Args:
        directory: Where the files go; made where it is missing, files of the same name are replaced.
        num_images: How many, at least 1.
        size: Side of the pictures in pixels, at least 32.
        seed: The same seed gives the same set; not negative.
        on_progress: Called after each image with how many are drawn and how many there will be.

    Returns:
        The table, without splits, with a box for each finding shown.

    Raises:
        UsageError: A number is too small.
    """
    if num_images < 1:
        raise errors.UsageError(f"num_images is {num_images}; a data set needs at least 1")
    directory.mkdir(parents=True, exist_ok=True)
    rows, boxes = [], []
    for number, order in enumerate(islice(_orders(seed), num_images), start=1):
        picture, found = radiograph(
            order.person,
            view=order.view,
            findings=order.findings,
            size=size,
            seed=(seed, order.patient, order.visit),
        )
        name = f"{order.patient:05d}_{order.visit:03d}.png"
        (directory / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
        patient, age = f"{order.patient:05d}", order.person.age + order.visit // 2
        known = [float(finding in order.findings) for finding in FINDINGS]
        study = f"{patient}-{order.visit}"
        rows.append(
            (name, "phantom", patient, study, order.view, order.person.sex, age, size, size, "", *known)
        )
        boxes += [(name, finding, *box) for finding, box in found]
        if on_progress is not None:
            on_progress(number, num_images)
    citation = "Synthetic radiographs drawn by Hilum"
    return Table(
        frame=pd.DataFrame(rows, columns=[*COLUMNS, *FINDINGS]),
        findings=FINDINGS,
        sources=(Source("phantom", directory, citation, "synthetic, no patient", states_no_finding=True),),
        boxes=pd.DataFrame(boxes, columns=list(BOX_COLUMNS)).astype(BOX_TYPES),
    )


def phantom(seed: int, size: int, findings: Collection[str] = ()) -> NDArray[np.uint8]:
    """Draw one radiograph of somebody who does not exist.

    Args:
        seed: The same seed gives the same person in the same position, with whatever findings; not negative.
        size: Side of the picture in pixels, at least 32.
        findings: Any of `FINDINGS`, in any order.

    Returns:
        uint8 (size, size), bright where the beam was absorbed.

    Raises:
        UsageError: A finding that cannot be drawn, or a size that is too small.
    """
    first = next(_orders(seed))
    return radiograph(first.person, view=first.view, findings=findings, size=size, seed=(seed, 0, 0))[0]


def radiograph(
    person: Person, *, view: str, findings: Collection[str], size: int, seed: tuple[int, ...]
) -> tuple[NDArray[np.uint8], list[tuple[str, Box]]]:
    """Draw one radiograph of a person.

    Args:
        person: Who is drawn.
        view: PA or AP.
        findings: Any of `FINDINGS`, in any order.
        size: Side of the picture in pixels, at least 32.
        seed: Of what differs between visits. Each finding has a stream of its own in it, so that the rest of the
            picture is the same with and without it.

    Returns:
        The picture, uint8 (size, size), and (finding, box) for each place where a finding shows.

    Raises:
        UsageError: A finding that cannot be drawn, or a size that is too small.
    """
    for name in findings:
        if name not in PAINTERS:
            known = errors.nearest(name, PAINTERS)
            raise errors.UsageError(f"a phantom cannot show {name!r}; it can show: {known}")
    if size < MIN_SIZE:
        raise errors.UsageError(f"a phantom of {size} pixels is too small; {MIN_SIZE} is the least")
    streams = [
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4 + len(PAINTERS))
    ]
    place, texture, things, film = streams[:4]
    own = dict(zip(PAINTERS, streams[4:], strict=True))
    visit = Visit.draw(place, person, view=view)
    chest = anatomy.layers(person, visit, size=size, rng=texture)
    add_bystanders(chest, things)
    window = choose_window(attenuation(chest), film)
    boxes = [
        (name, box) for name, paint in PAINTERS.items() if name in findings for box in paint(chest, own[name])
    ]
    picture = develop(attenuation(chest), window, film)
    add_marker(picture, film)
    return picture, boxes


@dataclass(frozen=True)
class _Order:
    """One image to draw."""

    patient: int
    visit: int
    person: Person
    view: str
    findings: tuple[str, ...]


def _orders(seed: int) -> Iterator[_Order]:
    """All images of a seed, without end, patient by patient."""
    if seed < 0:
        raise errors.UsageError(f"seed is {seed}; it must not be negative")
    for patient in count():
        rng = np.random.default_rng([seed, patient])
        person = Person.draw(rng, sex="F" if rng.random() < 0.5 else "M", age=float(rng.integers(18, 91)))
        findings: tuple[str, ...] = ()
        for visit in range(1 + int(rng.choice(len(NUM_VISITS), p=NUM_VISITS))):
            # Some findings are still there at the next visit.
            if visit == 0 or rng.random() < 0.6:
                shuffled = [FINDINGS[number] for number in rng.permutation(len(FINDINGS))]
                findings = tuple(shuffled[: rng.choice(len(NUM_FINDINGS), p=NUM_FINDINGS)])
            view = "AP" if rng.random() < SHARE_AP else "PA"
            yield _Order(patient, visit, person, view, findings)


def paint_cardiomegaly(chest: Layers, rng: np.random.Generator) -> list[Box]:
    """Paint a heart wider than 0.55 of the chest, in place of the healthy one; the box leaves out the great vessels."""
    chest.place_heart(rng.uniform(*ENLARGED_HEART))
    return [_box(chest.canvas.cover(chest.heart[chest.heart[:, 1] > 0.42]) > 0.5)]


def paint_pneumothorax(chest: Layers, rng: np.random.Generator) -> list[Box]:
    """Free air around a lung that has come off the wall: a thin line, and no vessels beyond it."""
    side = int(rng.choice([-1, 1]))
    canvas = chest.canvas
    outline = anatomy.lung_outline(chest.person, chest.visit, side, inset=rng.uniform(0.10, 0.32))
    inside = canvas.cover(outline, blur=0.004)
    free = chest.sides[side] * (1 - inside)
    chest.tissue = chest.tissue * (1 - 0.95 * free) + 0.05 * inside * chest.sides[side]
    chest.vessels *= 1 - free
    pleura = canvas.cover(anatomy.tube(outline, 0.022), blur=0.004) * canvas.soften(free, 0.02)
    chest.extra += rng.uniform(1.2, 2.2) * pleura
    return [_box(free > 0.5)]


def paint_effusion(chest: Layers, rng: np.random.Generator) -> list[Box]:
    """Fluid in one pleural space, higher at the wall than at the heart."""
    side = int(rng.choice([-1, 1]))
    if np.any((chest.tissue < 0.1) & (chest.sides[side] > 0.9)):  # the pneumothorax keeps its side
        side = -side
    height = rng.uniform(0.30, 0.60)
    angle = anatomy.dome(chest.person, chest.visit, side) + 0.15
    u = np.linspace(0, 1.1, 24)
    surface = np.column_stack([u, angle - height * (0.25 + 0.75 * u**2.5)])
    outline = np.concatenate([surface, [(1.1, 1.6), (0.0, 1.6)]]) * np.array([side, 1])
    fluid = chest.canvas.cover(anatomy.midline(chest.person, outline), blur=0.025)
    replaced = chest.lung * (1 - chest.tissue) * fluid
    chest.tissue += (1 - chest.tissue) * 0.97 * fluid
    return [_box(replaced > 1.2)]


def paint_opacity(chest: Layers, rng: np.random.Generator) -> list[Box]:
    """Paint a consolidation without a clear edge, in which airways stay open."""
    side = int(rng.choice([-1, 1]))
    u, v = _in_lung(chest, rng, side, margin=0.10)
    spread = rng.uniform(0.16, 0.23)
    lumps = [(0.0, 0.0, 1.1), *np.column_stack([rng.normal(0, 0.6, (7, 2)), rng.uniform(0.5, 1.0, 7)])]
    outlines = [
        anatomy.ellipse((u + spread * a, v + spread / TALL * b), spread * c, spread / TALL * c)
        for a, b, c in lumps
    ]
    cloud = chest.canvas.cover(*outlines, blur=0.35 * spread)
    mottle = anatomy.fractal_noise(rng, chest.canvas.size, coarsest=16)
    weight = np.clip(cloud * (1.1 + 0.18 * mottle), 0, 1) * chest.sides[side]
    airways = np.clip(0.25 * (chest.vessels - 1.0), 0, 0.35)  # bronchi run beside the vessels
    density = rng.uniform(0.65, 0.90) * weight * (1 - airways)
    chest.tissue += (1 - chest.tissue) * density
    chest.vessels *= 1 - weight  # no edge is seen between blood and fluid
    return [_box(weight > 0.25)]


def paint_nodules(chest: Layers, rng: np.random.Generator) -> list[Box]:
    """Paint one to three round shadows of 20 to 30 mm."""
    boxes = []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.4, 0.35, 0.25]))):
        radius = rng.uniform(1.0, 1.5) / CM_PER_UNIT
        u, v = _in_lung(chest, rng, int(rng.choice([-1, 1])), margin=0.06)
        bumps = 1 + 0.06 * np.cos(3 * np.linspace(0, 2 * np.pi, 32, endpoint=False) + rng.uniform(0, 6))
        outline = np.array([u, v]) + anatomy.CIRCLE * bumps[:, None] * np.array([radius, radius / TALL])
        density = rng.uniform(1.8, 2.4)
        ball = chest.canvas.rounded([outline], radius, blur=0.008)
        chest.extra += 2 * radius * CM_PER_UNIT * density * ball
        boxes.append(_box(ball > 0.1))
    return boxes


# In the order of painting: what moves the lung comes first, so that the rest finds its place in it.
PAINTERS: dict[str, Callable[[Layers, np.random.Generator], list[Box]]] = {
    "Cardiomegaly": paint_cardiomegaly,
    "Pneumothorax": paint_pneumothorax,
    "Effusion": paint_effusion,
    "Lung Opacity": paint_opacity,
    "Nodule": paint_nodules,
}
FINDINGS: tuple[str, ...] = tuple(PAINTERS)
"""What a phantom can show, in the vocabulary's names."""


def _in_lung(chest: Layers, rng: np.random.Generator, side: int, *, margin: float) -> tuple[float, float]:
    """Return a place where aerated lung is seen, at least `margin` units from its edge."""
    canvas = chest.canvas
    ring = np.concatenate([np.zeros((1, 2)), margin * anatomy.CIRCLE[::4] / np.array([1, TALL])])
    u, v = 0.0, 0.0
    for _ in range(60):
        u, v = side * rng.uniform(0.2, 0.95), rng.uniform(0.05, 1.05)
        columns, rows = np.rint(canvas.pixels(ring + np.array([u, v]))).astype(int).T
        seen = min(columns.min(), rows.min()) >= 0 and max(columns.max(), rows.max()) < canvas.size
        if (
            seen
            and np.all(chest.lung[rows, columns] > 4)
            and np.all(np.abs(chest.tissue[rows, columns] - 0.25) < 0.12)
        ):
            break
    return u, v


def _box(inside: NDArray[np.bool_]) -> Box:
    """Return the smallest box around what is true; the whole picture where nothing is."""
    size = inside.shape[0]
    columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
    if not len(columns):
        return 0.0, 0.0, 1.0, 1.0
    x, y = float(columns[0] / size), float(rows[0] / size)
    return x, y, float((columns[-1] + 1) / size) - x, float((rows[-1] + 1) / size) - y


def attenuation(chest: Layers) -> Map:
    """Sum what weakens the beam: float32 (size, size), the negative logarithm of the light that is left."""
    air = chest.lung * (1 - chest.tissue)
    soft = np.maximum(chest.body - air + chest.vessels + chest.extra, 0)
    skin = np.minimum(chest.body, 1)  # nothing of the body lies outside it
    beam: Map = (np.float32(SOFT) * soft + np.float32(BONE) * chest.bone) * skin
    return beam


def choose_window(beam: Map, rng: np.random.Generator) -> tuple[float, float]:
    """Set the film's middle grey and the width of its scale, as well or badly as it happens."""
    edge = beam.shape[0] // 8
    middle = beam[edge:-edge:4, edge:-edge:4]
    low, high = np.percentile(middle[middle > 0.5], [5, 95])
    centre = low + (high - low) * rng.uniform(0.40, 0.60)
    return float(centre), float((high - low) * rng.uniform(0.17, 0.28))


def develop(beam: Map, window: tuple[float, float], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn attenuation into the grey values of a film: scatter, grain, blur, and an S-shaped curve."""
    size = beam.shape[0]
    light = np.exp(-beam)
    fog = np.minimum(cv2.resize(light, (32, 32), interpolation=cv2.INTER_AREA), 0.3)
    scatter = cv2.resize(cv2.GaussianBlur(fog, (0, 0), 3), (size, size))
    log = -np.log(light + np.float32(rng.uniform(0.02, 0.08)) * scatter)
    grain = np.float32(rng.uniform(0.006, 0.016)) * rng.standard_normal((size, size), dtype=np.float32)
    # Fewer photons arrive behind more tissue, so it is grainier.
    log += grain * np.exp(np.float32(0.3) * (log - 2))
    log = cv2.GaussianBlur(log, (0, 0), rng.uniform(0.35, 0.7) * max(1.0, size / 256))
    centre, width = window
    grey: Map = 255 / (1 + np.exp((np.float32(centre) - log) / np.float32(width)))
    return np.rint(grey).astype(np.uint8)


def add_bystanders(chest: Layers, rng: np.random.Generator) -> None:
    """Add what looks like a finding and is none: nipples, folds of skin, leads and their wires."""
    canvas = chest.canvas
    if rng.random() < 0.15:
        level = 0.70 + 0.2 * chest.person.breast
        places = np.array([(-0.58, level), (0.58, level)]) + rng.normal(0, 0.025, (2, 2))
        nipples = [anatomy.ellipse((u, v), 0.032, 0.032 / TALL) for u, v in places]
        chest.extra += rng.uniform(0.4, 0.9) * canvas.cover(*nipples, blur=0.01)
    if rng.random() < 0.12:
        side, top, bend = rng.choice([-1, 1]), rng.uniform(0.1, 0.4), rng.uniform(-0.1, 0.2)
        edge = anatomy.spline([(0.95, top), (0.8 - bend, top + 0.25), (0.75, top + 0.6)])
        fold = np.concatenate([edge, [(1.2, top + 0.6), (1.2, top)]]) * np.array([side, 1])
        sharp = canvas.cover(fold, blur=0.006)
        chest.extra += rng.uniform(0.8, 1.5) * np.maximum(sharp - canvas.soften(sharp, 0.12), 0)
    if chest.visit.view == "AP" and rng.random() < 0.5:
        wires, pads = [], []
        for _ in range(int(rng.integers(1, 4))):
            side = rng.choice([-1, 1])
            u, v = (
                side * rng.uniform(0.5, 1.1),
                rng.uniform(0, 0.15) if rng.random() < 0.5 else rng.uniform(0.8, 1.1),
            )
            path = [
                (u, v),
                (1.1 * u, v + 0.3),
                (side * rng.uniform(0.2, 1.0), v + 0.7),
                (rng.uniform(-1, 1), 2.0),
            ]
            wires.append(anatomy.tube(anatomy.spline(path), 0.014))
            pads.append(anatomy.ellipse((u, v), 0.035, 0.035 / TALL))
        chest.bone += 1.2 * canvas.cover(*wires) + 3 * canvas.cover(*pads)


def add_marker(picture: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Write the letter of a side into most pictures, in place."""
    size = picture.shape[0]
    if rng.random() < 0.25:
        return
    letter, x = ("L", 0.92) if rng.random() < 0.6 else ("R", 0.03)
    place = round(size * (x + rng.uniform(0, 0.02))), round(size * rng.uniform(0.07, 0.16))
    scale = size / 256
    thick = max(1, round(1.4 * scale))
    cv2.putText(picture, letter, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42 * scale, 235, thick, cv2.LINE_AA)
