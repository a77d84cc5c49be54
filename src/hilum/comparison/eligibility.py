"""Contenders -> the rows of their tests that can be compared, or why none can; what a reader must know of them."""

from collections.abc import Sequence

import numpy as np

from hilum import images
from hilum.comparison.contenders import TABLE, Contender
from hilum.errors import DataError, ImageError, UsageError
from hilum.stats.scores import MIN_PATIENTS

LOOKED_AT, SIDE = 32, 64
"""Pictures that are held against each other, and the side of the squares they are compared as."""
DIFFERENT = 0.02
"""Mean difference of the grey values, in [0, 1], from which on two pictures are not the same. Of 40 NIH images resized
from 1024 to 256 pixels none differed by more than 0.0003; of 400 different ones no two differed by less than 0.039."""


def check_task(first: Contender, other: Contender) -> None:
    """Raise UsageError unless two runs answer the same question."""
    one, two = first.manifest, other.manifest
    if (one.task.kind, set(one.findings)) != (two.task.kind, set(two.findings)):
        told = [f"{m.task.kind} of {', '.join(m.findings)}" for m in (one, two)]
        raise UsageError(
            f"{first.name} answers {told[0]}; {other.name} answers {told[1]}: give runs of one task and finding"
        )


def in_common(entrants: Sequence[Contender]) -> list[np.ndarray]:
    """Find the images that all tests hold.

    Returns:
        Of each run the rows of its test, (n,), in the first run's order.

    Raises:
        DataError: There is none, or one stands in the training of a run.
    """
    keys = [one.keys() for one in entrants]
    shared = keys[0]
    for other in keys[1:]:
        shared = shared[shared.isin(other)]
    if not len(shared):
        raise DataError(
            f"the test parts of {', '.join(one.name for one in entrants)} have no image in common; train with one "
            "split ([split] of the recipe)"
        )
    for one in entrants:
        inside = int(shared.isin(one.tuned()[0]).sum())
        if inside:
            raise DataError(
                f"{inside:,} of the {len(shared):,} test images in common stand in the training of {one.name} "
                f"({one.folder / TABLE}); nothing can be compared on them"
            )
    return [own.get_indexer(shared) for own in keys]


def matched(entrants: Sequence[Contender], rows: Sequence[np.ndarray], *, seed: int) -> tuple[str, bool]:
    """Say by what the images were matched, and hold some of the pictures against each other.

    Equal names in two data sets do not make two pictures one. Runs that read the same files need no look at them.

    Args:
        entrants: The runs.
        rows: As `in_common` returns them.
        seed: Chooses the pictures.

    Returns:
        A sentence, and whether it rests on more than the names.

    Raises:
        DataError: Pictures of one source and name differ.
    """
    first, hashes = entrants[0], {one.manifest.training.split_hash for one in entrants}
    if len(hashes) == 1:
        division = f"all runs have one split ({first.manifest.training.split_hash[:16]})"
    else:
        own = ", ".join(f"{one.name} {one.manifest.training.split_hash[:16]}" for one in entrants)
        division = f"the runs' splits differ ({own})"
    told = f"Images were matched by source and name; {division}"
    chosen = np.sort(
        np.random.default_rng(seed).choice(len(rows[0]), min(LOOKED_AT, len(rows[0])), replace=False)
    )
    looked = 0
    for other, mine in zip(entrants[1:], rows[1:], strict=True):
        if first.table is None or other.table is None:
            return f"{told}; the pictures could not be compared, for want of {TABLE}.", len(hashes) == 1
        ours, theirs = first.places(rows[0][chosen]), other.places(mine[chosen])
        for one, two in zip(ours, theirs, strict=True):
            places = first.table.location(int(one)), other.table.location(int(two))
            if places[0] == places[1]:
                continue
            try:
                squares = [images.prepare(place, SIDE).pixels.astype(float) / 255 for place in places]
            except ImageError:
                return f"{told}; the pictures could not be read and compared.", len(hashes) == 1
            looked += 1
            if np.abs(squares[0] - squares[1]).mean() > DIFFERENT:
                raise DataError(
                    f"{first.table.frame['image'].iloc[int(one)]} of {first.name} and the image of the same source and "
                    f"name of {other.name} are different pictures ({places[0]}, {places[1]}): the tests are not of the "
                    "same images; give each data set a source of its own name, or the same images to both runs"
                )
    seen = (
        f"{looked:,} pictures that lie in two places were compared and are the same"
        if looked
        else "the runs read the same files"
    )
    return f"{told}; {seen}.", True


def check_labels(entrants: Sequence[Contender], rows: Sequence[np.ndarray]) -> None:
    """Raise DataError unless all runs hold the same to be true; `rows` as `in_common` returns them."""
    first = entrants[0]
    truth = first.stored.labels[rows[0]]
    for other, mine in zip(entrants[1:], rows[1:], strict=True):
        columns = [other.manifest.findings.index(finding) for finding in first.manifest.findings]
        theirs = other.stored.labels[mine][:, columns]
        differ = ((truth != theirs) & ~(np.isnan(truth) & np.isnan(theirs))).any(axis=1)
        if differ.any():
            image = first.stored.images[rows[0]][np.argmax(differ)]
            raise DataError(
                f"{int(differ.sum()):,} of {len(differ):,} images in common have other labels in {other.name} than in "
                f"{first.name} (first: {image}); evaluate both on one table with the same labels"
            )


def check_number(entrants: Sequence[Contender], labels: np.ndarray, patients: np.ndarray) -> None:
    """Raise DataError where the tests differ and what they share is too small to tell anything."""
    if all(len(one.stored.images) == len(labels) for one in entrants):
        return
    enough = [
        min(len(np.unique(patients[labels[:, column] == value])) for value in (0, 1)) >= MIN_PATIENTS
        for column in range(labels.shape[1])
    ]
    if not any(enough):
        own = ", ".join(f"{one.name} {len(one.stored.images):,}" for one in entrants)
        raise DataError(
            f"the test parts have {len(labels):,} images in common (of {own}); at least {MIN_PATIENTS} patients with "
            "and as many without a finding are needed: train with one split"
        )


def warnings(entrants: Sequence[Contender], rows: Sequence[np.ndarray]) -> list[str]:
    """What a reader must know before any number."""
    first, number = entrants[0], len(rows[0])
    lines = []
    if any(len(one.stored.images) != number for one in entrants):
        own = ", ".join(f"{one.name} {len(one.stored.images):,}" for one in entrants)
        lines.append(
            f"The test images differ. Compared on the {number:,} images in common (own tests: {own})."
        )
        for one in entrants:
            trained, _ = one.tuned()
            others = [
                f"{int(other.keys().isin(trained).sum()):,} of {other.name}"
                for other in entrants
                if other is not one and other.keys().isin(trained).any()
            ]
            if others:
                lines.append(
                    f"{one.name} was trained or tuned on test images of others, left out here: {', '.join(others)}."
                )
    patients = first.stored.patients[rows[0]]
    for one, mine in zip(entrants, rows, strict=True):
        if one.table is None:
            lines.append(f"{one.name} has no {TABLE}: what it was trained on cannot be checked.")
        shared = int(np.isin(patients, list(one.tuned()[1])).sum())
        if shared:
            lines.append(
                f"Leak: {shared:,} of the {number:,} images are of patients that {one.name} was trained or tuned on; "
                "its figures flatter."
            )
        elif one.manifest.training.leaky:
            lines.append(f"The split of {one.name} is leaky; its figures flatter.")
        if (one.stored.patients[mine] != patients).any():
            lines.append(
                f"{one.name} and {first.name} number patients differently; intervals follow {first.name}."
            )
    lines += _unlike(entrants)
    reads = [f"{one.name} {one.stored.test_reads}" for one in entrants if one.stored.test_reads > 1]
    if reads:
        lines.append(
            f"Test evaluated more than once: {', '.join(reads)} times; choices made between flatter."
        )
    lines.append("Choose a model by validation: the best of several test figures flatters.")
    return lines


def _unlike(entrants: Sequence[Contender]) -> list[str]:
    """In what the models differ so that some figures cannot be held against each other."""
    lines = []
    for what, values, meaning in (
        ("Thresholds follow different rules", [one.manifest.calibration.rule for one in entrants],
         "decisions are not like for like, AUROC and AP are"),
        ("Negatives differ", [one.manifest.task.negatives for one in entrants],
         "the models learned different questions"),
    ):  # fmt: skip
        if len(set(values)) > 1:
            whose: dict[str, list[str]] = {}
            for one, value in zip(entrants, values, strict=True):
                whose.setdefault(value, []).append(one.name)
            told = "; ".join(f"{value}: {', '.join(names)}" for value, names in whose.items())
            lines.append(f"{what} ({told}): {meaning}.")
    hashes: dict[str, str] = {}
    for one in entrants:
        earlier = hashes.setdefault(one.model.bundle.hash, one.name)
        if earlier != one.name:
            lines.append(f"{one.name} and {earlier} are one and the same bundle.")
    return lines
