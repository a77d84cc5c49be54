import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn.utils.class_weight import compute_class_weight

from hilum.data.balance import balanced_rows, class_weights, description
from hilum.errors import UsageError
from hilum.recipe import BalanceSettings

OVERSAMPLE = BalanceSettings(method="oversample")
UNKNOWN = -1


def downsample(number=0):
    return BalanceSettings(method="downsample", number=number)


def labels_of(classes, kind):
    """Each row's class as the labels of a table: one column, or one for each of four classes."""
    classes = np.asarray(classes)
    labels = classes[:, None] if kind == "binary" else classes[:, None] == np.arange(4)
    return np.where(classes[:, None] == UNKNOWN, np.nan, labels).astype(np.float32)


@st.composite
def tasks(draw):
    """A kind, each row's class, the labels, and some rows of the table in any order."""
    kind = draw(st.sampled_from(["binary", "multiclass"]))
    largest = 1 if kind == "binary" else 3
    classes = np.array(draw(st.lists(st.integers(UNKNOWN, largest), min_size=1, max_size=60)))
    rows = draw(st.lists(st.sampled_from(range(len(classes))), unique=True))
    return kind, classes, labels_of(classes, kind), np.array(rows, np.int64)


def sizes_of(classes):
    return {number: int((classes == number).sum()) for number in set(classes.tolist()) - {UNKNOWN}}


@given(tasks(), st.integers(0, 20), st.integers(0, 5))
def test_downsampling_keeps_of_each_class_what_is_asked_for_and_each_row_once(task, number, seed):
    kind, classes, labels, rows = task
    kept = balanced_rows(rows, labels, downsample(number), kind=kind, seed=seed)

    sizes = sizes_of(classes[rows])
    limit = number or min(sizes.values(), default=0)
    assert sizes_of(classes[kept]) == {of_class: min(size, limit) for of_class, size in sizes.items()}
    assert (np.diff(kept) > 0).all()
    assert set(kept) <= set(rows)
    assert set(rows[classes[rows] == UNKNOWN]) <= set(kept)


@given(tasks(), st.integers(1, 20), st.integers(1, 20), st.integers(0, 5))
def test_the_rows_kept_of_fewer_are_among_those_kept_of_more(task, number, more, seed):
    kind, _, labels, rows = task
    fewer, many = (
        balanced_rows(rows, labels, downsample(limit), kind=kind, seed=seed)
        for limit in (number, number + more)
    )
    assert set(fewer) <= set(many)


@given(tasks(), st.integers(0, 5))
def test_oversampling_gives_each_class_as_many_entries_as_the_commonest(task, seed):
    kind, classes, labels, rows = task
    entries = balanced_rows(rows, labels, OVERSAMPLE, kind=kind, seed=seed)

    sizes = sizes_of(classes[rows])
    assert sizes_of(classes[entries]) == dict.fromkeys(sizes, max(sizes.values(), default=0))
    assert set(entries) == set(rows)
    assert (np.diff(entries) >= 0).all()
    times = np.bincount(entries, minlength=len(classes))
    for of_class in sizes:
        of_rows = times[rows[classes[rows] == of_class]]
        assert of_rows.max() - of_rows.min() <= 1
    assert (times[rows[classes[rows] == UNKNOWN]] == 1).all()


@given(tasks(), st.sampled_from([downsample(), downsample(3), OVERSAMPLE]), st.randoms(use_true_random=False))
def test_what_is_drawn_does_not_depend_on_the_order_of_rows(task, settings, random):
    kind, _, labels, rows = task
    shuffled = np.array(random.sample(rows.tolist(), len(rows)), np.int64)

    first, second = (balanced_rows(some, labels, settings, kind=kind, seed=1) for some in (rows, shuffled))
    np.testing.assert_array_equal(first, second)


@given(tasks(), st.sampled_from(["none", "class-weights", "positive-weights"]))
def test_other_methods_leave_the_rows_as_they_came(task, method):
    kind, _, labels, rows = task
    same = balanced_rows(rows, labels, BalanceSettings(method=method), kind=kind, seed=0)
    np.testing.assert_array_equal(same, rows)


@pytest.mark.parametrize("settings", [downsample(10), OVERSAMPLE], ids=["downsample", "oversample"])
def test_another_seed_draws_others(settings):
    labels = labels_of([0] * 70 + [1] * 30, "binary")
    first, again, other = (
        balanced_rows(np.arange(100), labels, settings, kind="binary", seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_each_row_is_as_likely_to_be_kept():
    # Two of six rows, 600 times: each 200 times, give or take four deviations.
    labels = labels_of([0] * 6 + [1] * 2, "binary")
    kept = [
        balanced_rows(np.arange(8), labels, downsample(), kind="binary", seed=seed) for seed in range(600)
    ]
    assert (np.abs(np.bincount(np.concatenate(kept), minlength=8)[:6] - 200) < 46).all()


def test_normals_of_nih_chestxray14_come_down_to_about_as_many_as_pneumonias():
    labels = labels_of([1] * 1_431 + [0] * 60_361, "binary")
    rows = balanced_rows(np.arange(len(labels)), labels, downsample(1_450), kind="binary", seed=0)

    assert (labels[rows] == 1).sum() == 1_431
    assert (labels[rows] == 0).sum() == 1_450


@pytest.mark.parametrize("method", ["downsample", "oversample"])
def test_images_with_several_findings_are_not_drawn_by_class(method):
    labels = np.array([[1.0, 0.0], [1.0, 1.0]], np.float32)
    with pytest.raises(UsageError, match=f"{method}.*use 'positive-weights' or 'class-weights'"):
        balanced_rows(np.arange(2), labels, BalanceSettings(method=method), kind="multilabel", seed=0)


def test_class_weights_agree_with_scikit_learns_balanced():
    labels = np.array([1, 0, 0, 0, 1, 0, np.nan], np.float32)[:, None]

    found = class_weights(labels, BalanceSettings(method="class-weights"), kind="binary")

    known = labels[~np.isnan(labels)]
    expected = compute_class_weight("balanced", classes=np.array([0.0, 1.0]), y=known)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_class_weights_of_several_classes_agree_with_scikit_learns_balanced():
    classes = np.array([0, 2, 2, 0, 1, 0, 0, 3, 3, 3])

    found = class_weights(
        labels_of(classes, "multiclass"), BalanceSettings(method="class-weights"), kind="multiclass"
    )

    expected = compute_class_weight("balanced", classes=np.arange(4), y=classes)
    np.testing.assert_allclose(found, np.stack([np.ones(4), expected], axis=1), rtol=1e-6)


def test_a_class_that_does_not_occur_leaves_the_weights_of_the_others():
    labels = labels_of([0, 0, 0, 1], "multiclass")

    found = class_weights(labels, BalanceSettings(method="class-weights"), kind="multiclass")

    np.testing.assert_allclose(found[:, 1], [2 / 3, 2, 1, 1], rtol=1e-6)


def test_positive_weights_make_the_present_weigh_as_much_as_the_absent():
    labels = np.array([[1, 1], [0, 1], [0, 0], [0, np.nan]], np.float32)

    found = class_weights(labels, BalanceSettings(method="positive-weights"), kind="multilabel")

    np.testing.assert_allclose(found, [[1, 3], [1, 0.5]])


@pytest.mark.parametrize("method", ["class-weights", "positive-weights"])
@pytest.mark.parametrize("only", [0.0, 1.0])
def test_a_finding_with_one_class_keeps_weights_of_one(method, only):
    labels = np.full((5, 1), only, np.float32)

    np.testing.assert_array_equal(
        class_weights(labels, BalanceSettings(method=method), kind="binary"), [[1, 1]]
    )


@pytest.mark.parametrize("method", ["none", "downsample", "oversample"])
def test_without_weights_all_weigh_one(method):
    labels = np.array([[1.0], [0.0], [0.0]], np.float32)

    np.testing.assert_array_equal(
        class_weights(labels, BalanceSettings(method=method), kind="binary"), [[1, 1]]
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (BalanceSettings(), "classes not balanced"),
        (downsample(1_450), "downsampled: Pneumonia absent 4,823 -> 1,450, present 1,431 kept"),
        (OVERSAMPLE, "oversampled: Pneumonia absent 4,823 kept, present 1,431 -> 4,823"),
        (
            BalanceSettings(method="class-weights"),
            "weighted in the loss: Pneumonia absent 0.65, present 2.19",
        ),
        (
            BalanceSettings(method="positive-weights"),
            "weighted in the loss: Pneumonia absent 1.00, present 3.37",
        ),
    ],
    ids=lambda value: getattr(value, "method", ""),
)
def test_a_sentence_says_what_was_done_to_a_finding(settings, sentence):
    labels = labels_of([1] * 1_431 + [0] * 4_823, "binary")
    rows = balanced_rows(np.arange(len(labels)), labels, settings, kind="binary", seed=0)

    assert description(labels, labels[rows], settings, kind="binary", findings=["Pneumonia"]) == sentence


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (downsample(), "downsampled: a 4 -> 1, b 2 -> 1, c 1 kept, d 0 kept"),
        (BalanceSettings(method="class-weights"), "weighted in the loss: a 0.58, b 1.17, c 2.33, d 1.00"),
    ],
    ids=lambda value: getattr(value, "method", ""),
)
def test_a_sentence_says_what_was_done_to_each_of_several_classes(settings, sentence):
    labels = labels_of([0, 0, 1, 0, 2, 1, 0], "multiclass")
    rows = balanced_rows(np.arange(len(labels)), labels, settings, kind="multiclass", seed=0)

    assert description(labels, labels[rows], settings, kind="multiclass", findings="abcd") == sentence


def test_what_downsampling_leaves_unequal_may_weigh_in_the_loss():
    settings = BalanceSettings(method="downsample", number=30, weigh_rest=True)
    before = labels_of([0] * 90 + [1] * 10, "binary")
    rows = balanced_rows(np.arange(100), before, settings, kind="binary", seed=0)

    weights = class_weights(before[rows], settings, kind="binary")

    np.testing.assert_allclose(weights, [[40 / 60, 40 / 20]])
    assert description(before, before[rows], settings, kind="binary", findings=["Pneumonia"]) == (
        "downsampled: Pneumonia absent 90 -> 30, present 10 kept; "
        "weighted in the loss: Pneumonia absent 0.67, present 2.00"
    )
    oversampled = BalanceSettings(method="oversample", weigh_rest=True)
    assert (class_weights(before, oversampled, kind="binary") == 1).all()
