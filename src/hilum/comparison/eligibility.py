"""Contenders -> the rows of their tests that can be compared, or why none can; what a reader must know of them."""

from collections.abc import Iterator, Sequence

import numpy as np

from hilum import images
from hilum.comparison.contenders import Contender
from hilum.errors import DataError, ImageError, UsageError
from hilum.notices import Notice, notice
from hilum.runs.folder import TABLE, RunFolder
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
                f"({RunFolder(one.folder).table}); nothing can be compared on them"
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


def comparison_notices(entrants: Sequence[Contender], rows: Sequence[np.ndarray]) -> Iterator[Notice]:
    """Yield what a reader must know before any number."""
    first, number = entrants[0], len(rows[0])
    if any(len(entrant.stored.images) != number for entrant in entrants):
        own = ", ".join(f"{entrant.name} {len(entrant.stored.images):,}" for entrant in entrants)
        yield notice("tests-differ", images=number, own=own)
        for entrant in entrants:
            trained, _ = entrant.tuned()
            others = [
                f"{int(other.keys().isin(trained).sum()):,} of {other.name}"
                for other in entrants
                if other is not entrant and other.keys().isin(trained).any()
            ]
            if others:
                yield notice("trained-on-others-tests", model=entrant.name, others=others)
    patients = first.stored.patients[rows[0]]
    for entrant, own_rows in zip(entrants, rows, strict=True):
        if entrant.table is None:
            yield notice("training-unknown", model=entrant.name, table=TABLE)
        shared = int(np.isin(patients, list(entrant.tuned()[1])).sum())
        if shared:
            yield notice("leak-in-common", images=shared, total=number, model=entrant.name)
        elif entrant.manifest.training.leaky:
            yield notice("leaky-model", model=entrant.name)
        if (entrant.stored.patients[own_rows] != patients).any():
            yield notice("patients-numbered-differently", model=entrant.name, reference=first.name)
    yield from _differences(entrants)
    reads = [
        f"{entrant.name} {entrant.stored.test_reads}" for entrant in entrants if entrant.stored.test_reads > 1
    ]
    if reads:
        yield notice("tests-read-again", reads=reads)
    yield notice("choose-by-validation")


def _differences(entrants: Sequence[Contender]) -> Iterator[Notice]:
    """Yield in what the models differ so that some metrics cannot be held against each other."""
    for what, values, meaning in (
        ("Thresholds follow different rules", [entrant.manifest.calibration.rule for entrant in entrants],
         "decisions are not like for like, AUROC and AP are"),
        ("Negatives differ", [entrant.manifest.task.negatives for entrant in entrants],
         "the models learned different questions"),
    ):  # fmt: skip
        models: dict[str, list[str]] = {}
        for entrant, value in zip(entrants, values, strict=True):
            models.setdefault(value, []).append(entrant.name)
        if len(models) > 1:
            yield notice("models-differ", what=what, models=models, meaning=meaning)
    names: dict[str, str] = {}
    for entrant in entrants:
        earlier = names.setdefault(entrant.model.bundle.hash, entrant.name)
        if earlier != entrant.name:
            yield notice("same-bundle", model=entrant.name, other=earlier)
