"""Training rows and labels -> what is done about rare classes: rows left out or repeated, or weights in the loss."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hilum.errors import UsageError
from hilum.recipe import BalanceSettings


def balanced_rows(
    rows: NDArray[np.int64], labels: NDArray[np.float32], settings: BalanceSettings, *, kind: str, seed: int
) -> NDArray[np.int64]:
    """Leave out rows of common classes, or repeat rows of rare ones.

    `downsample`: a class keeps at most `settings.number` rows, or for 0 as many as the rarest class has; those
    kept of fewer are among those kept of more. `oversample`: each class gets as many entries as the commonest,
    its rows all equally often, give or take one. Classes without a row do not count, and rows of no known class
    stay as they are. What is drawn does not depend on the order of `rows`.

    Args:
        rows: (n,) rows of the table to train on, each once.
        labels: (rows of the table, findings) 1, 0 or NaN: the labels of the whole table, not of `rows` alone.
        settings: With any other method `rows` are returned as they came.
        kind: `binary`, `multilabel` or `multiclass`.
        seed: Not negative. Of the draw.

    Returns:
        int64, ascending where something was drawn.

    Raises:
        UsageError: `multilabel` images, which belong to several classes at once, were to be drawn by class.
    """
    if settings.method not in ("downsample", "oversample"):
        return rows
    if kind == "multilabel":
        raise UsageError(
            f"balance.method is {settings.method!r}, but images of task.kind 'multilabel' have several findings at "
            "once; use 'positive-weights' or 'class-weights'"
        )
    rng = np.random.default_rng([seed, 0xBA1A])
    rows = np.sort(rows)
    classes = _classes(labels[rows], kind=kind)
    # All are put in random order, whether many are wanted or few: so that the fewer are among the more.
    members = [rng.permutation(rows[classes == number]) for number in range(classes.max(initial=-1) + 1)]
    sizes = [len(of_class) for of_class in members if len(of_class)]
    if settings.method == "downsample":
        wanted = settings.number or min(sizes, default=0)
        drawn = [of_class[:wanted] for of_class in members]
    else:
        # The beginning again and again: whole repeats, and a remainder that is random as the order is.
        drawn = [np.resize(of_class, max(sizes)) for of_class in members if len(of_class)]
    return np.sort(np.concatenate([rows[classes < 0], *drawn]))


def class_weights(
    labels: NDArray[np.float32], settings: BalanceSettings, *, kind: str
) -> NDArray[np.float32]:
    """Weigh the classes in the loss.

    `class-weights`, as scikit-learn's `balanced`: a class of n_c among n known labels weighs n / (k n_c), where k
    classes occur, so that all together weigh as much as before; k is 2 for each finding of `binary` and
    `multilabel`. `positive-weights`: present weighs absent / present, and absent 1. A finding, or a task of
    `multiclass`, with one class only keeps weights of 1, and so does a class that does not occur.

    Args:
        labels: (images, findings) of the training split, 1, 0 or NaN.
        settings: Any other method gives ones, but for `downsample` with `weigh_rest`, which weighs as `class-weights`.
        kind: `binary`, `multilabel` or `multiclass`.

    Returns:
        float32 (findings, 2): of absent and of present. For `multiclass` the weight of each class stands under
        present.
    """
    absent, present = (labels == 0).sum(axis=0), (labels == 1).sum(axis=0)
    weights = np.ones((labels.shape[1], 2), np.float32)
    both = (absent > 0) & (present > 0)
    weighs = settings.method == "class-weights" or (settings.method == "downsample" and settings.weigh_rest)
    if settings.method == "positive-weights":
        weights[both, 1] = absent[both] / present[both]
    elif weighs and kind == "multiclass":
        occurs = present > 0
        weights[occurs, 1] = present.sum() / (occurs.sum() * present[occurs])
    elif weighs:
        counts = np.stack([absent, present], axis=1)[both]
        weights[both] = counts.sum(axis=1, keepdims=True) / (2 * counts)
    return weights


def description(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    settings: BalanceSettings,
    *,
    kind: str,
    findings: Sequence[str],
) -> str:
    """Say in one line what balancing did to each class.

    Args:
        before: (images, findings) labels of the training split.
        after: Those of the rows that `balanced_rows` made of it.
        settings: What was asked for.
        kind: `binary`, `multilabel` or `multiclass`.
        findings: Names of the columns.

    Returns:
        For example `downsampled: Pneumonia absent 42,250 -> 1,450, present 1,002 kept`.
    """
    if settings.method == "none":
        return "classes not balanced"
    names, done = _names(kind, findings), []
    if settings.method in ("downsample", "oversample"):
        sizes = [_sizes(labels, kind=kind).ravel().tolist() for labels in (before, after)]
        parts = [
            f"{name} {old:,} kept" if old == new else f"{name} {old:,} -> {new:,}"
            for name, old, new in zip(names, *sizes, strict=True)
        ]
        done.append(f"{settings.method}d: {', '.join(parts)}")
        if settings.method == "oversample" or not settings.weigh_rest:
            return done[0]
    weights = class_weights(after, settings, kind=kind)
    values = weights[:, 1] if kind == "multiclass" else weights.ravel()
    weighted = ", ".join(f"{name} {value:,.2f}" for name, value in zip(names, values, strict=True))
    return "; ".join([*done, f"weighted in the loss: {weighted}"])


def _classes(labels: NDArray[np.float32], *, kind: str) -> NDArray[np.int64]:
    """Number each row's class (rows,): 0 absent and 1 present, or the class's column; -1 where none is known."""
    if kind == "multiclass":
        present = labels == 1
        return np.where(present.any(axis=1), present.argmax(axis=1), -1)
    return np.nan_to_num(labels[:, 0], nan=-1).astype(np.int64)


def _sizes(labels: NDArray[np.float32], *, kind: str) -> NDArray[np.int64]:
    """Count the rows of each class, in the order of `_names`."""
    present = (labels == 1).sum(axis=0)
    return present if kind == "multiclass" else np.stack([(labels == 0).sum(axis=0), present], axis=1)


def _names(kind: str, findings: Sequence[str]) -> list[str]:
    if kind == "multiclass":
        return list(findings)
    return [name for finding in findings for name in (f"{finding} absent", "present")]
