"""A bundle and a table -> the rows that are scored, with their images prepared, and what they are to the bundle."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from hilum.bundle import Bundle
from hilum.bundle.manifest import Manifest
from hilum.data.audit import same_images
from hilum.data.audit.duplicates import digests
from hilum.data.examples import Examples, prepare
from hilum.data.split import split, split_hash
from hilum.data.table import Table
from hilum.errors import DataError, HilumError, UsageError
from hilum.files import spreadsheet_safe
from hilum.inference.predictor import Predictor
from hilum.inference.runtime import Outputs
from hilum.progress import Watcher
from hilum.recipe import parse_recipe
from hilum.runs.folder import RunFolder

BLOCK = 32
UNITED = {
    "train": "images that trained one or more of the ensemble's {} members",
    "val": "images that tuned one or more of the ensemble's {} members and trained none",
    "test": "images that neither trained nor tuned any of the ensemble's {} members",
    "all": "all images, those that trained the ensemble's {} members included",
}
"""Of an ensemble whose members were divided differently: what each part is."""


@dataclass(frozen=True)
class Cohort:
    """The rows of a table that are scored, and what they are to the model.

    Attributes:
        examples: The rows that are scored, and others of their patients where some calibrated the bundle; divided as in
            training where they are the training's own.
        rows: int64, those of `examples` that are scored.
        name: `train`, `val`, `test` or `all`.
        description: How the part was made, in a sentence.
        internal: Whether these are the training's own data.
        left_out: Images of this part whose patients calibrated the bundle.
        outside: Of data from elsewhere the labelled images that are in other parts than this.
    """

    examples: Examples
    rows: np.ndarray
    name: str
    description: str
    internal: bool
    left_out: int = 0
    outside: int = 0


def choose(table: Table, bundle: Bundle, split: str | None, *, watch: Watcher) -> Cohort:
    """Find out whether these are the training's own data, take the part asked for and prepare its images.

    Patients whose images calibrated the bundle are left out.

    Args:
        table: The rows that answer the bundle's task; see `examples.answering`.
        bundle: The bundle.
        split: `train`, `val`, `test` or `all`. None stands for the test of the training's own data, and for all images
            from elsewhere; if a source among them was trained on, for the test part, where there is one.
        watch: Receives the progress of the preparation.

    Raises:
        UsageError: There is no such part.
        DataError: No image of it can be read, or all of its patients calibrated the bundle.
    """
    manifest = bundle.manifest
    divided = divided_as_in_training(table, bundle, watch=watch)
    if divided is not None:
        table, name, description = divided, split or "test", manifest.training.split_description
        if len({member.manifest.training.split_hash for member in manifest.members}) > 1:
            description = UNITED[name].format(len(manifest.members))
    else:
        name, description = _external_part(table, manifest, split)
    inside = np.full(len(table), True) if name == "all" else table.frame["split"].to_numpy(str) == name
    outside = 0 if divided is not None else int((~inside).sum())
    if outside:
        description += f"; {inside.sum():,} of {len(table):,} images, with --split all all of them"
    if not inside.any():
        raise _nothing_inside(table, manifest, name, internal=divided is not None)
    if len(bundle.calibrated_on):
        # Who calibrated is known by pictures, and a patient's may stand in several parts.
        inside = np.isin(table.patient_keys, table.patient_keys[inside])
    examples = prepare(table.select(inside), manifest.input, watch=watch)
    rows = examples.rows(name)
    if not len(rows):
        first = examples.quarantine.iloc[0]
        raise DataError(
            f"no image of the {name} part could be read (first: {first['image']}: {first['reason']})"
        )
    cohort = Cohort(examples, rows, name, description, divided is not None, outside=outside)
    return _without_calibrating(cohort, bundle) if len(bundle.calibrated_on) else cohort


def _external_part(table: Table, manifest: Manifest, split: str | None) -> tuple[str, str]:
    """Return which part of data from elsewhere is scored, and what it is, in a sentence."""
    parts, sources = set(table.frame["split"]), set(table.frame["source"])
    familiar = sorted(sources & set(manifest.seen.sources))
    name = split or ("test" if familiar and "test" in parts else "all")
    if parts <= {""}:
        name = "all"
    whose = "all images" if name == "all" else f"the {name} part of the source's own split"
    what = "not the data that the model was trained on"
    if familiar:
        others = ", ".join(sorted(sources - set(familiar)))
        what = f"of {', '.join(familiar)}, which the model was trained on"
        what += f", and of {others}, which it was not" if others else ", divided otherwise"
    return name, f"external data, {whose}: {what}"


def _nothing_inside(table: Table, manifest: Manifest, name: str, *, internal: bool) -> HilumError:
    if internal and manifest.members:
        return DataError(
            f"no image is in the {name} part of every member: each trained or tuned one of the ensemble's "
            f"{len(manifest.members)} members. Evaluate it on data from elsewhere; what cross-validation says of its "
            "members is in the evaluation beside them"
        )
    present = sorted(set(table.frame["split"]) - {""})
    return UsageError(
        f"no image belongs to the {name} part; there are: {', '.join(present) or 'none'}; or --split all"
    )


def divided_as_in_training(table: Table, bundle: Bundle, *, watch: Watcher) -> Table | None:
    """Return the table with the split that the model was trained with, or None for other data.

    Images are prepared only where nothing else tells: for a bundle away from its run, and data of the same name. Of an
    ensemble an image belongs to train if it trained a member, to val if it tuned one, and else to the test.

    Args:
        table: The rows that answer the bundle's task.
        bundle: The bundle.
        watch: Receives the progress of the preparation.

    Raises:
        DataError: What trained one member of an ensemble is known of these data, and of another not.
    """
    manifest = bundle.manifest
    if split_hash(table) == manifest.training.split_hash:
        return table
    if (stored := _stored(bundle)) is not None:
        return _divided_as(table, stored, _quarantined(bundle))
    if not manifest.members:
        return _divided_anew(table, manifest, watch)
    tables = [_divided_anew(table, member.manifest, watch) for member in manifest.members]
    known = [divided for divided in tables if divided is not None]
    sources = {source.name for source in table.sources}
    for member, divided in zip(manifest.members, tables, strict=True):
        if known and divided is None and sources & set(member.manifest.seen.sources):
            raise DataError(
                f"these data trained some members of the ensemble, and member {member.hash[:16]} was trained on a data "
                "set of the same name, divided in a way that these data do not show: its training images cannot be "
                "left out. Give data that no member was trained on"
            )
    return united(known[0], known) if known else None


def united(table: Table, divided: Sequence[Table]) -> Table:
    """Unite train and val of several divisions of a table, train first; the test is what is in neither.

    Args:
        table: Any table.
        divided: Its rows with a split each, in the same order.
    """
    parts = np.full(len(table), "test", dtype=object)
    for part in ("val", "train"):
        for division in divided:
            parts[division.frame["split"].to_numpy() == part] = part
    return table.with_split(parts.tolist())


def _divided_anew(table: Table, manifest: Manifest, watch: Watcher) -> Table | None:
    """Return the readable rows with the split of a training that may have been on them, or None if it was not."""
    training = manifest.training
    if split_hash(table) == training.split_hash:
        return table
    fewest = training.num_train + training.num_val + training.num_test
    if len(table) < fewest or not set(manifest.seen.sources) <= set(table.frame["source"]):
        return None
    examples = prepare(table, manifest.input, watch=watch)
    if split_hash(examples.table) == training.split_hash:
        return examples.table
    # Bundles of before copies were kept together were divided without looking at the pictures.
    for image_numbers in (same_images(examples.cached.pixels, examples.cached.slots), None):
        try:
            recipe = parse_recipe(manifest.recipe)
            divided = split(
                examples.table, recipe.split, findings=manifest.findings, image_numbers=image_numbers
            )
        except HilumError:
            return None
        if divided.hash == training.split_hash:
            return divided.table
    return None


def run(
    predictor: Predictor, examples: Examples, rows: np.ndarray, on_progress: Callable[[int, int], None]
) -> Outputs:
    """Run the prepared squares of some rows; the maps come empty."""
    batches = (examples.cached.images(rows[start : start + BLOCK]) for start in range(0, len(rows), BLOCK))
    return predictor.run_squares(batches, lambda done: on_progress(done, len(rows)))


def fingerprints(examples: Examples, rows: np.ndarray) -> np.ndarray:
    """Return what a picture is known by again, under whatever name, uint8 (n, 16).

    BLAKE2b over the square that the network sees. Of pixels, not of patients' numbers: those could be guessed.
    """
    cached = examples.cached
    return digests(cached.pixels, cached.slots[rows]).view(np.uint8).reshape(-1, 16)


def _without_calibrating(cohort: Cohort, bundle: Bundle) -> Cohort:
    """Leave out every image of the patients of whom one calibrated the bundle."""
    used = {row.tobytes() for row in bundle.calibrated_on}
    every = np.arange(len(cohort.examples.table))
    hit = np.array([row.tobytes() in used for row in fingerprints(cohort.examples, every)], bool)
    if not hit.any():
        return cohort
    whose = cohort.examples.table.patient_keys
    kept = cohort.rows[~np.isin(whose[cohort.rows], whose[hit])]
    if not len(kept):
        raise DataError(
            f"all {len(cohort.rows):,} images belong to patients who calibrated this bundle; they cannot test it: "
            "give images of others, or calibrate on a part (`hilum bundle recalibrate --share`)"
        )
    left_out = len(cohort.rows) - len(kept)
    description = cohort.description
    if left_out:
        description += f"; without {left_out:,} images of patients who calibrated the bundle"
    return replace(cohort, rows=kept, left_out=left_out, description=description)


def _stored(bundle: Bundle) -> Table | None:
    """Return the table that the run beside a bundle was trained on, if there is one."""
    with contextlib.suppress(HilumError):
        table = Table.read(RunFolder(bundle.folder.parent).table)
        if split_hash(table) == bundle.manifest.training.split_hash:
            return table
    return None


def _quarantined(bundle: Bundle) -> set[str]:
    """Return the images that the run beside a bundle could not read, as its CSV file writes them."""
    try:
        return set(
            pd.read_csv(RunFolder(bundle.folder.parent).quarantine, dtype=str, keep_default_na=False)["image"]
        )
    except (OSError, ValueError, KeyError):
        return set()


def _divided_as(table: Table, stored: Table, quarantined: set[str]) -> Table | None:
    """Return the rows of `stored` with its split; None where one is missing, or another image was not in quarantine."""
    keys, known = (
        list(zip(rows.frame["source"], rows.frame["image"], strict=True)) for rows in (table, stored)
    )
    parts = dict(zip(known, stored.frame["split"], strict=True))
    others = {spreadsheet_safe(image) for source, image in keys if (source, image) not in parts}
    if not parts.keys() <= set(keys) or not others <= quarantined:
        return None
    kept = table.select([key in parts for key in keys])
    return kept.with_split([parts[key] for key in keys if key in parts])
