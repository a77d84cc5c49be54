"""A bundle and a table with prepared images -> the rows that are scored, and what they are to the bundle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hilum import recipe as recipes
from hilum.bundle import Bundle
from hilum.data.audit import same_pictures
from hilum.data.audit.copies import digests
from hilum.data.examples import Examples
from hilum.data.split import split as divide, split_hash
from hilum.data.table import Table
from hilum.errors import DataError, HilumError
from hilum.manifest import Manifest
from hilum.runtime import Graph, Outputs

BLOCK = 32
UNITED = {
    "train": "images that trained one or more of the ensemble's {} members",
    "val": "images that tuned one or more of the ensemble's {} members and trained none",
    "test": "images that neither trained nor tuned any of the ensemble's {} members",
    "all": "all images, those that trained the ensemble's {} members included",
}
"""Of an ensemble whose members were divided differently: what each part is."""


@dataclass(frozen=True)
class Part:
    """The rows of a table that are scored, and what they are to the model.

    Attributes:
        examples: The table, divided as in training where it is the training's own.
        rows: int64, those that are scored.
        name: `train`, `val`, `test` or `all`.
        description: How the part was made, in a sentence.
        internal: Whether these are the training's own data.
        left_out: Images of this part whose patients calibrated the bundle.
    """

    examples: Examples
    rows: np.ndarray
    name: str
    description: str
    internal: bool
    left_out: int = 0


def choose(examples: Examples, bundle: Bundle, split: str) -> Part:
    """Finds out whether these are the training's own data, and takes the part asked for.

    Patients whose images calibrated the bundle are left out.

    Raises:
        DataError: No image belongs to the part, or all of its patients calibrated the bundle.
    """
    training = bundle.manifest.training
    divided = divided_as_in_training(examples, bundle.manifest)
    if divided is not None:
        examples = Examples(divided, examples.cached, examples.quarantine)
        rows, name, description = examples.rows(split), split, training.split_description
        if len({member.manifest.training.split_hash for member in bundle.manifest.members}) > 1:
            description = UNITED[split].format(len(bundle.manifest.members))
    else:
        rows, name = examples.rows(split), split
        if not len(rows) and not any(examples.table.frame["split"]):
            rows, name = examples.rows("all"), "all"
        whose = "all images" if name == "all" else f"the {name} part of the source's own split"
        description = f"external data, {whose}: not the data that the model was trained on"
    if not len(rows) and divided is not None and bundle.manifest.members:
        raise DataError(
            f"no image is in the {split} part of every member: each trained or tuned one of the ensemble's "
            f"{len(bundle.manifest.members)} members. Evaluate it on data from elsewhere; what cross-validation says "
            "of its members is in the evaluation beside them"
        )
    if not len(rows):
        present = sorted(set(examples.table.frame["split"]) - {""})
        raise DataError(
            f"no image belongs to the {split} part; there are: {', '.join(present) or 'none'}; or --split all"
        )
    part = Part(examples, rows, name, description, divided is not None)
    return _without_calibrating(part, bundle) if len(bundle.calibrated_on) else part


def divided_as_in_training(examples: Examples, manifest: Manifest) -> Table | None:
    """The table with the split that the model was trained with, or None for other data.

    Of an ensemble an image belongs to train if it trained a member, to val if it tuned one, and else to the test.

    Raises:
        DataError: What trained one member of an ensemble is known of these data, and of another not.
    """
    table = examples.table
    if not manifest.members or split_hash(table) == manifest.training.split_hash:
        return _divided(examples, manifest)
    divided = [_divided(examples, member.manifest) for member in manifest.members]
    if all(one is None for one in divided):
        return None
    sources = {source.name for source in table.sources}
    for member, one in zip(manifest.members, divided, strict=True):
        if one is None and sources & set(member.manifest.seen.sources):
            raise DataError(
                f"these data trained some members of the ensemble, and member {member.hash[:16]} was trained on a data "
                "set of the same name, divided in a way that these data do not show: its training images cannot be "
                "left out. Give data that no member was trained on"
            )
    return united(table, [one for one in divided if one is not None])


def united(table: Table, divided: Sequence[Table]) -> Table:
    """The table with train and val of several divisions of it united, train first; the test is what is in neither.

    Args:
        table: Any table.
        divided: Its rows with a split each, in the same order.
    """
    parts = np.full(len(table), "test", dtype=object)
    for part in ("val", "train"):
        for one in divided:
            parts[one.frame["split"].to_numpy() == part] = part
    return table.with_split(parts.tolist())


def _divided(examples: Examples, manifest: Manifest) -> Table | None:
    table, cached = examples.table, examples.cached
    if split_hash(table) == manifest.training.split_hash:
        return table
    # Bundles of before copies were kept together were divided without looking at the pictures.
    for pictures in (same_pictures(cached.pixels, cached.slots), None):
        try:
            recipe = recipes.parse(manifest.recipe)
            divided = divide(table, recipe.split, findings=manifest.findings, pictures=pictures)
        except HilumError:
            return None
        if divided.hash == manifest.training.split_hash:
            return divided.table
    return None


def run(
    graph: Graph, examples: Examples, rows: np.ndarray, on_progress: Callable[[int, int], None]
) -> Outputs:
    """Runs some rows' images; the maps, which nobody needs of so many, come empty."""
    logits, embeddings = [], []
    for start in range(0, len(rows), BLOCK):
        outputs = graph.outputs(examples.cached.images(rows[start : start + BLOCK]))
        logits.append(outputs.logits)
        embeddings.append(outputs.embedding)
        on_progress(start + len(outputs.logits), len(rows))
    joined = np.concatenate(logits)
    return Outputs(joined, np.zeros((len(joined), 0, 0, 0), np.float32), np.concatenate(embeddings))


def patients(table: Table) -> np.ndarray:
    """Returns each row's patient, str (rows,); the same number in two sources is two patients."""
    return np.asarray((table.frame["source"] + ":" + table.frame["patient"]).to_numpy(str))


def fingerprints(examples: Examples, rows: np.ndarray) -> np.ndarray:
    """Returns what a picture is known by again, under whatever name, uint8 (n, 16).

    BLAKE2b over the square that the network sees. Of pixels, not of patients' numbers: those could be guessed.
    """
    cached = examples.cached
    return digests(cached.pixels, cached.slots[rows]).view(np.uint8).reshape(-1, 16)


def _without_calibrating(part: Part, bundle: Bundle) -> Part:
    """Leaves out every image of the patients of whom one calibrated the bundle."""
    used = {row.tobytes() for row in bundle.calibrated_on}
    every = np.arange(len(part.examples.table))
    hit = np.array([row.tobytes() in used for row in fingerprints(part.examples, every)], bool)
    if not hit.any():
        return part
    whose = patients(part.examples.table)
    kept = part.rows[~np.isin(whose[part.rows], whose[hit])]
    if not len(kept):
        raise DataError(
            f"all {len(part.rows):,} images belong to patients who calibrated this bundle; they cannot test it: "
            "give images of others, or calibrate on a part (`hilum bundle recalibrate --share`)"
        )
    left_out = len(part.rows) - len(kept)
    description = part.description
    if left_out:
        description += f"; without {left_out:,} images of patients who calibrated the bundle"
    return replace(part, rows=kept, left_out=left_out, description=description)
