"""A Table -> the same Table with train, val and test, by patient unless another way is asked for by name."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hilum.data.readers.base import SPLIT_MEANINGS, file_names, parse_choice, read_csv, require_columns
from hilum.data.table import SPLITS, Table
from hilum.errors import DataError, UsageError
from hilum.recipe import SplitSettings

DIVIDE_ANEW = "--set split.method=patient divides them by patient"
FEW_TO_STEER = 50  # images of validation, below which a note says so


@dataclass(frozen=True, eq=False)
class Split:
    """A divided table.

    Attributes:
        table: Every row has train, val or test.
        method: As asked.
        seed: As asked.
        fractions: Shares of train, val and test among the rows, as they came out.
        hash: SHA-256 (hexadecimal) over the sorted lines `source, image, split`: the division's name.
        leaky: A patient is in more than one part, or the division was by image.
        description: One line for reports.
        notes: What to know besides, a line each.
    """

    table: Table
    method: str
    seed: int
    fractions: tuple[float, float, float]
    hash: str
    leaky: bool
    description: str
    notes: tuple[str, ...]


def split(
    table: Table,
    settings: SplitSettings,
    *,
    findings: Sequence[str] | None = None,
    image_numbers: NDArray[np.int64] | None = None,
) -> Split:
    """Divide a table into train, val and test.

    Args:
        table: What is to be divided; its own `split` column is used by `folders`, `official` and `given` only.
        settings: How.
        findings: Each part gets its share of these; all of the table's by default.
        image_numbers: (rows,), equal where two rows hold the same image, negative where that is not known. Where
            whole patients are drawn, patients who share an image are drawn together.

    Returns:
        The divided table with what must be known of it.

    Raises:
        UsageError: The list does not exist.
        DataError: There are too few patients, or the source or list does not say what it should.
    """
    names = tuple(table.findings if findings is None else findings)
    if not len(table):
        raise DataError("the table has no rows to divide")
    labels = table.labels(names)
    groups = _linked(_names(table, "patient"), image_numbers)
    if settings.folds:
        parts = _fold(table, settings, labels, groups)
    elif settings.method in ("folders", "official"):
        parts = _kept_test(table, settings, labels, groups)
    elif settings.method == "given":
        parts = _given(table)
    elif settings.method == "list":
        parts = _listed(table, settings)
    else:
        groups = groups if settings.method == "patient" else _names(table, "image")
        everything = np.ones(len(table), dtype=bool)
        test = carve(
            groups, labels, everything, size=settings.test * len(table), salt=f"{settings.seed} test"
        )
        val = carve(groups, labels, ~test, size=settings.val * len(table), salt=f"{settings.seed} val")
        parts = np.where(test, "test", np.where(val, "val", "train"))
    _check_filled(table, settings, parts)
    return _described(table.with_split(parts.tolist()), settings, table, names)


def check_list(settings: SplitSettings) -> None:
    """Refuse a list that is not there."""
    if settings.method == "list" and not (settings.list and settings.list.is_file()):
        raise UsageError(
            f"there is no file {settings.list}; split.list is a CSV file with the columns image and split"
        )


def check_source(table: Table, settings: SplitSettings) -> None:
    """Refuse a division by the source's own parts where the source has none, before any image is prepared.

    Raises:
        DataError: Rows are in no part, or a part that the method needs has no row.
    """
    if settings.method in ("folders", "official"):
        _check_own_parts(table, settings)
    elif settings.method == "given":
        _given(table)


def split_hash(table: Table) -> str:
    """Return the SHA-256 over the sorted lines `source, image, split` (tabs between), in hexadecimal."""
    rows = table.frame[["source", "image", "split"]].to_numpy(object)
    lines = sorted("\t".join(row) for row in rows)
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def _fold(
    table: Table, settings: SplitSettings, labels: NDArray[np.float32], groups: NDArray[np.object_]
) -> NDArray[np.str_]:
    """Return one fold is the test; the source's own test, where the method keeps one, is in no part."""
    own = np.full(len(table), "")
    if settings.method in ("folders", "official"):
        own = _kept_test(table, settings, labels, groups)
    elif settings.method == "list":
        own = _listed(table, settings)
    among = own != "test"
    test = draw_folds(groups, labels, among, number=settings.folds, seed=settings.seed) == settings.fold
    rest = among & ~test
    val = carve(groups, labels, rest, size=settings.val * rest.sum(), salt=f"{settings.seed} val")
    return np.where(test, "test", np.where(val, "val", np.where(rest, "train", "")))


def _kept_test(
    table: Table, settings: SplitSettings, labels: NDArray[np.float32], groups: NDArray[np.object_]
) -> NDArray[np.str_]:
    _check_own_parts(table, settings)
    test = table.frame["split"].to_numpy(object) == "test"
    shared = _num_shared(table, np.where(test, "test", "train"))
    if settings.method == "official" and shared:
        raise DataError(
            f"split method 'official' needs lists that are disjoint by patient, but {shared:,} patients are in both "
            "train and test; method 'folders' takes the source's division as it is"
        )
    val = carve(groups, labels, ~test, size=settings.val * (~test).sum(), salt=f"{settings.seed} val")
    return np.where(test, "test", np.where(val, "val", "train"))


def _check_own_parts(table: Table, settings: SplitSettings) -> None:
    own = table.frame["split"].to_numpy(object)
    unsaid = int((own == "").sum())
    lacking = [part for part in ("train", "test") if part not in own]
    if unsaid or lacking:
        problem = (
            f"{unsaid:,} of {len(own):,} images have no split" if unsaid else f"no image is in {lacking[0]}"
        )
        raise DataError(
            f"split method {settings.method!r} needs each image in the source's own train or test, but {problem}; "
            f"{DIVIDE_ANEW}"
        )


def _given(table: Table) -> NDArray[np.str_]:
    own: NDArray[np.str_] = table.frame["split"].to_numpy(str)
    counts = {part: int((own == part).sum()) for part in SPLITS}
    if sum(counts.values()) < len(own) or not all(counts.values()):
        told = ", ".join(f"{count:,} in {part}" for part, count in counts.items())
        only_val = counts["train"] and counts["test"] and sum(counts.values()) == len(own)
        mend = "--set split.method=folders carves val from train" if only_val else DIVIDE_ANEW
        raise DataError(
            f"split method 'given' needs each image in the source's own train, val or test, but of {len(own):,} there "
            f"are {told}; {mend}"
        )
    return own


def _listed(table: Table, settings: SplitSettings) -> NDArray[np.str_]:
    check_list(settings)
    assert settings.list is not None
    cells = read_csv(settings.list)
    require_columns(cells, ("image", "split"), path=settings.list)
    split_, odd = parse_choice(cells["split"], SPLIT_MEANINGS, column="split")
    if odd or (split_ == "").any():
        raise DataError(f"{settings.list}: each row's split must be one of {', '.join(SPLITS)}")
    listed, images = cells["image"].str.strip(), table.frame["image"].astype(object)
    if not images.isin(listed).any():
        # A list made where the images lay in other folders still names the files.
        listed, images = file_names(listed), file_names(images)
    for name, paths in ((f"{settings.list}", listed), ("the table", images)):
        if paths.duplicated().any():
            raise DataError(
                f"{name} names {int(paths.duplicated().sum()):,} images twice; they cannot be told apart"
            )
    parts = images.map(pd.Series(split_.to_numpy(), index=listed.to_numpy()))
    absent = int(parts.isna().sum())
    if absent:
        raise DataError(
            f"{absent:,} of the table's {len(table):,} images are not in {settings.list}; list them, or leave them out"
        )
    return np.asarray(parts, dtype=str)


def _linked(names: NDArray[np.object_], image_numbers: NDArray[np.int64] | None) -> NDArray[np.object_]:
    """Give patients who share an image one name, the first in order; others keep theirs, and so their draw."""
    if image_numbers is None:
        return names
    patient, known = pd.factorize(names, sort=True)
    shared = pd.DataFrame({"image": image_numbers, "patient": patient})[image_numbers >= 0].drop_duplicates()
    shared = shared[shared.duplicated("image", keep=False)]
    first = shared.groupby("image")["patient"].transform("min")
    graph = coo_array((np.ones(len(shared)), (first, shared["patient"])), shape=(len(known), len(known)))
    _, group = connected_components(graph, directed=False)
    # Codes rise with the names, so that the first patient of a group is its first in order.
    _, leader = np.unique(group, return_index=True)
    linked: NDArray[np.object_] = np.asarray(known, object)[leader[group]][patient]
    return linked


def _names(table: Table, column: str) -> NDArray[np.object_]:
    """Return `source<tab>value` a row: the draw hashes these names, so that another form would draw other rows."""
    pairs = table.frame[["source", column]].to_numpy(object)
    return np.array(["\t".join(pair) for pair in pairs], dtype=object)


def _num_shared(table: Table, parts: NDArray[np.str_]) -> int:
    """Count the patients that are in more than one part; rows in no part do not count."""
    pairs = pd.DataFrame({"patient": table.patient_keys, "part": parts.astype(object)})[
        parts != ""
    ].drop_duplicates()
    return int((pairs["patient"].value_counts() > 1).sum())


def carve(
    groups: NDArray[np.object_],
    labels: NDArray[np.float32],
    among: NDArray[np.bool_],
    *,
    size: float,
    salt: str,
) -> NDArray[np.bool_]:
    """Draw whole groups until about `size` rows are drawn, with their share of each label.

    The order in which groups are looked at is that of a hash of their names and the salt: random, yet the
    same on every machine, with every version of NumPy, and whatever the order of the rows.

    Args:
        groups: Name of each row's group (rows,).
        labels: (rows, findings): 1, 0 or NaN; present and unknown are each kept in proportion.
        among: bool (rows,): where to draw from.
        size: How many rows to draw; what is drawn differs by at most half of the largest group.
        salt: Another one gives another draw.

    Returns:
        bool (rows,): drawn.
    """
    drawn = np.zeros(len(groups), dtype=bool)
    if size <= 0 or not among.any():
        return drawn
    codes, names = pd.factorize(groups[among])
    order = np.array(
        sorted(range(len(names)), key=lambda g: hashlib.sha256(f"{salt} {names[g]}".encode()).digest())
    )
    inside = labels[among]
    unknown = np.isnan(inside)
    marks = np.concatenate([inside == 1, unknown[:, unknown.any(axis=0)]], axis=1)
    counts = np.zeros((len(names), marks.shape[1]))
    np.add.at(counts, codes, marks)
    taken = np.zeros(len(names), dtype=bool)
    sizes = np.bincount(codes, minlength=len(names))
    taken[order] = _stratify(counts[order], sizes[order], fraction=size / len(codes))
    drawn[among] = taken[codes]
    return drawn


def draw_folds(
    groups: NDArray[np.object_],
    labels: NDArray[np.float32],
    among: NDArray[np.bool_],
    *,
    number: int,
    seed: int,
) -> NDArray[np.int64]:
    """Divide rows into folds of whole groups, each with its share of each label.

    Each fold is carved in turn out of what the folds before it left, so that what one misses is shared by all that
    follow: the sizes of five folds differ by at most 1.55 of the largest group, and not by a rest that the last one
    gets.

    Args:
        groups: Name of each row's group (rows,).
        labels: (rows, findings): 1, 0 or NaN.
        among: bool (rows,): what to divide.
        number: Of folds.
        seed: Another one gives another draw.

    Returns:
        int64 (rows,): 1 to `number`, 0 for what was not to be divided.

    Raises:
        DataError: There are fewer groups than folds.
    """
    found = len(np.unique(groups[among].astype(str)))
    if found < number:
        raise DataError(
            f"{found:,} patients cannot be divided into {number:,} folds; give fewer folds or more data"
        )
    folds = np.zeros(len(groups), np.int64)
    for fold in range(1, number):
        left = among & (folds == 0)
        size = left.sum() / (number - fold + 1)
        folds[carve(groups, labels, left, size=float(size), salt=f"{seed} fold {fold}")] = fold
    folds[among & (folds == 0)] = number
    return folds


def _stratify(counts: NDArray[np.float64], sizes: NDArray[np.int64], *, fraction: float) -> NDArray[np.bool_]:
    """Divide groups in two by iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011).

    The rarest label's groups are dealt first, each to the part that still wants most of that label, else to
    the one with more room; groups without a label fill up. A part takes a group only while it has room for
    half of it, so that sizes hold whatever the labels.

    Args:
        counts: (groups, labels): rows of each group that have the label.
        sizes: (groups,): rows of each group.
        fraction: Of the rows, for the first part.

    Returns:
        bool (groups,): in the first part.
    """
    shares = np.array([fraction, 1 - fraction])
    wanted = shares[:, None] * counts.sum(axis=0)
    room = (shares * sizes.sum()).tolist()
    part = np.full(len(sizes), -1)

    def deal(group: int, wants: tuple[float, float]) -> None:
        both_fit = min(room) >= sizes[group] / 2
        first = (wants[0], room[0]) > (wants[1], room[1]) if both_fit else room[0] > room[1]
        part[group] = chosen = 0 if first else 1
        room[chosen] -= sizes[group]
        wanted[chosen] -= counts[group]

    while (left := counts[part < 0].sum(axis=0)).any():
        label = int(np.where(left > 0, left, np.inf).argmin())
        for group in np.flatnonzero((part < 0) & (counts[:, label] > 0)).tolist():
            deal(group, (wanted[0, label], wanted[1, label]))
    for group in np.flatnonzero(part < 0).tolist():
        deal(group, (0.0, 0.0))
    first_part: NDArray[np.bool_] = part == 0
    return first_part


def _check_filled(table: Table, settings: SplitSettings, parts: NDArray[np.str_]) -> None:
    asked = {"train": 1.0, "val": settings.val, "test": settings.test}
    if settings.folds:
        asked |= {"test": 1.0}
    elif settings.method in ("list", "given"):
        asked = {"train": 1.0}
    for part, fraction in asked.items():
        if fraction > 0 and part not in parts:
            unit = "images" if settings.method == "image" else "patients"
            count = len(table) if settings.method == "image" else table.num_patients
            raise DataError(
                f"{count:,} {unit} ({len(table):,} images) leave nothing for {part} with split method "
                f"{settings.method!r}; more data or other fractions are needed"
            )


def _described(table: Table, settings: SplitSettings, source: Table, findings: Sequence[str]) -> Split:
    parts = table.frame["split"].to_numpy(str)
    fractions = tuple(float((parts == part).mean()) for part in SPLITS)
    shared = _num_shared(table, parts)
    return Split(
        table=table,
        method=settings.method,
        seed=settings.seed,
        fractions=(fractions[0], fractions[1], fractions[2]),
        hash=split_hash(table),
        leaky=settings.method == "image" or shared > 0,
        description=_description(settings, steering=int((parts == "val").sum())),
        notes=(
            *_notes_on_patients(table, shared),
            *_notes_on_source(settings, source),
            *_notes_on_labels(table, findings),
        ),
    )


def _description(settings: SplitSettings, *, steering: int) -> str:
    val = f"{settings.val:.0%}"
    if settings.folds:
        kept = "" if settings.method == "patient" else "; the source's own test is in no fold"
        return (
            f"fold {settings.fold} of {settings.folds} by patient, stratified, seed {settings.seed}; "
            f"validation is {val} of the other folds{kept}"
        )
    return {
        "patient": f"by patient: {settings.test:.0%} test, {val} validation, stratified, seed {settings.seed}",
        "folders": f"the source's own test; validation is {val} of the rest, by patient, seed {settings.seed}",
        "official": f"the published lists' test; validation is {val} of the rest, by patient, seed {settings.seed}",
        "given": f"the source's own train, validation ({steering:,} images) and test, as they are",
        "list": f"as listed in {Path(settings.list or '').name}",
        "image": f"LEAKY, by image: {settings.test:.0%} test, {val} validation, stratified, seed {settings.seed}",
    }[settings.method]


def _notes_on_patients(table: Table, shared: int) -> tuple[str, ...]:
    if shared:
        return (f"{shared:,} patients are in more than one part: results on val and test flatter",)
    if table.num_patients == len(table):
        return ("each image is its own patient here; where that is for want of knowledge, patients may leak",)
    return ()


def _notes_on_source(settings: SplitSettings, source: Table) -> tuple[str, ...]:
    folded = int((source.frame["split"] == "val").sum())
    if settings.method == "given" and folded < FEW_TO_STEER:
        return (f"only {folded:,} images steer: best epoch, temperature and threshold are nearly arbitrary",)
    if settings.method not in ("folders", "official") or not folded:
        return ()
    return (
        f"the source's own validation of {folded:,} images was joined to its train before validation was carved",
    )


def _notes_on_labels(table: Table, findings: Sequence[str]) -> tuple[str, ...]:
    present = table.labels(findings) == 1
    parts = table.frame["split"].to_numpy(str)
    notes = []
    for part in (part for part in SPLITS if part in parts):
        none = [
            name for name, any_ in zip(findings, present[parts == part].any(axis=0), strict=True) if not any_
        ]
        if none:
            notes.append(f"{part} holds no positive of {', '.join(none)}")
    return tuple(notes)
