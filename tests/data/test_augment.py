import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hilum.data.augment import affine, augment
from hilum.recipe import AugmentSettings, load_recipe

EVERYTHING = AugmentSettings(
    rotation=20, shift=0.1, shear=10, zoom=0.2, flip=True, brightness=0.2, contrast=0.3, noise=0.05
)


def noise_image(size: int = 48) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (size, size), dtype=np.uint8)


def draws(**values: float) -> np.ndarray:
    names = ("rotation", "shift_x", "shift_y", "shear", "zoom", "flip")
    return np.array([values.get(name, 0.0) for name in names])


class Fixed(np.random.Generator):
    """Draws what it is told to, and noise from a seed."""

    def __init__(self, **values: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.draws = np.concatenate([draws(**values), np.array([values.get("contrast", 0.0)])])
        self.draws = np.append(self.draws, [values.get("brightness", 0.0), values.get("noise", 0.0)])

    def uniform(self, low: float, high: float, size: int) -> np.ndarray:  # type: ignore[override]
        assert (low, high, size) == (-1, 1, len(self.draws))
        return self.draws


def test_the_defaults_change_nothing() -> None:
    image = noise_image()
    for seed in range(5):
        np.testing.assert_array_equal(augment(image, AugmentSettings(), np.random.default_rng(seed)), image)


def test_draws_of_zero_change_nothing() -> None:
    image = noise_image()
    np.testing.assert_array_equal(augment(image, EVERYTHING, Fixed(flip=-1)), image)


def test_the_input_is_not_changed() -> None:
    image = noise_image()
    augment(image, EVERYTHING, np.random.default_rng(0))
    np.testing.assert_array_equal(image, noise_image())


def test_the_same_state_gives_the_same_image() -> None:
    image = noise_image()
    first, again, other = (augment(image, EVERYTHING, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_flip_mirrors_left_and_right_to_the_bit() -> None:
    image = noise_image()
    once = augment(image, AugmentSettings(flip=True), Fixed(flip=1))
    np.testing.assert_array_equal(once, image[:, ::-1])
    np.testing.assert_array_equal(augment(once, AugmentSettings(flip=True), Fixed(flip=1)), image)


def test_half_of_the_images_are_flipped() -> None:
    image = noise_image()
    flips = [
        (augment(image, AugmentSettings(flip=True), np.random.default_rng(seed)) != image).any()
        for seed in range(400)
    ]
    assert 160 < sum(flips) < 240


def test_a_quarter_turn_is_exact_and_counterclockwise() -> None:
    image = noise_image()
    turned = augment(image, AugmentSettings(rotation=90), Fixed(rotation=1))
    np.testing.assert_array_equal(turned, np.rot90(image))


def test_a_shift_by_whole_pixels_moves_right_and_down_and_brings_in_black() -> None:
    image = noise_image(40)
    moved = augment(image, AugmentSettings(shift=0.1), Fixed(shift_x=1, shift_y=0.5))
    np.testing.assert_array_equal(moved[2:, 4:], image[:-2, :-4])
    assert not moved[:2].any()
    assert not moved[:, :4].any()


def test_a_zoom_above_one_enlarges() -> None:
    image = np.zeros((64, 64), np.uint8)
    image[24:40, 24:40] = 200
    larger, smaller = (augment(image, AugmentSettings(zoom=0.5), Fixed(zoom=draw)) for draw in (1, -1))
    assert (larger > 100).sum() == pytest.approx(24**2, rel=0.1)
    assert (smaller > 100).sum() == pytest.approx(8**2, rel=0.1)


def test_a_shear_slants_along_x_by_its_angle() -> None:
    matrix = affine(AugmentSettings(shear=30), draws(shear=1), size=65)
    np.testing.assert_allclose(matrix @ [32, 32, 1], [32, 32])
    np.testing.assert_allclose(matrix @ [32, 42, 1], [32 + 10 * math.tan(math.radians(30)), 42])


@pytest.mark.parametrize("name", ["kermany-vgg16", "kermany-custom-cnn"])
@pytest.mark.parametrize("share", [-1.0, 1.0])  # the ends of what `augment` draws from
def test_a_recipe_turns_shifts_and_mirrors_as_far_as_the_published_code(name: str, share: float) -> None:
    change, size, centre = load_recipe(name).augment, 101, [50, 50, 1]

    def matrix(**values: float) -> np.ndarray:
        return affine(change, draws(flip=-1.0) + draws(**values), size=size)

    turned = matrix(rotation=share)
    assert math.degrees(math.atan2(turned[0, 1], turned[0, 0])) == pytest.approx(20 * share)
    moved = matrix(shift_x=share, shift_y=-share) @ centre
    np.testing.assert_allclose(moved, [50 + 0.2 * size * share, 50 - 0.2 * size * share])
    np.testing.assert_allclose(matrix(flip=2.0)[:, :2], [[-1, 0], [0, 1]])


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.floats(-1, 1)] * 6),
    st.floats(20, 43),
    st.floats(20, 43),
)
def test_a_hot_spot_moves_to_where_the_matrix_says(drawn: tuple[float, ...], x: float, y: float) -> None:
    size = 64
    columns, rows = np.meshgrid(np.arange(size), np.arange(size))
    spot = (250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)).astype(np.uint8)
    change = AugmentSettings(rotation=25, shift=0.1, shear=10, zoom=0.2, flip=True)
    names = ("rotation", "shift_x", "shift_y", "shear", "zoom", "flip")

    moved = augment(spot, change, Fixed(**dict(zip(names, drawn, strict=True)))).astype(float)

    found = (moved * columns).sum() / moved.sum(), (moved * rows).sum() / moved.sum()
    expected = affine(change, np.array(drawn), size=size) @ [x, y, 1]
    np.testing.assert_allclose(found, expected, atol=0.25)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([33, 64]))
def test_shape_and_type_are_kept_whatever_the_draw(seed: int, size: int) -> None:
    extreme = AugmentSettings(
        rotation=180, shift=0.99, shear=45, zoom=0.99, flip=True, brightness=0.99, contrast=0.99, noise=0.99
    )
    result = augment(noise_image(size), extreme, np.random.default_rng(seed))
    assert (result.shape, result.dtype) == ((size, size), np.uint8)


def test_brightness_adds_a_fraction_of_the_range_and_clips() -> None:
    image = np.array([[0, 100], [200, 250]], np.uint8)
    brighter = augment(image, AugmentSettings(brightness=0.2), Fixed(brightness=1))
    np.testing.assert_array_equal(brighter, [[51, 151], [251, 255]])
    darker = augment(image, AugmentSettings(brightness=0.2), Fixed(brightness=-1))
    np.testing.assert_array_equal(darker, [[0, 49], [149, 199]])


def test_contrast_multiplies_distances_from_the_mean() -> None:
    image = np.array([[90, 110], [60, 140]], np.uint8)
    np.testing.assert_array_equal(
        augment(image, AugmentSettings(contrast=0.5), Fixed(contrast=1)), [[85, 115], [40, 160]]
    )
    np.testing.assert_array_equal(
        augment(image, AugmentSettings(contrast=0.5), Fixed(contrast=-1)), [[95, 105], [80, 120]]
    )


def test_noise_has_the_drawn_deviation_and_no_bias() -> None:
    image = np.full((200, 200), 128, np.uint8)
    noisy = augment(image, AugmentSettings(noise=0.1), Fixed(noise=0.5)).astype(float)
    assert noisy.std() == pytest.approx(0.05 * 255, rel=0.02)
    assert noisy.mean() == pytest.approx(128, abs=0.3)


def test_a_setting_switched_on_leaves_the_draws_of_the_others() -> None:
    image = noise_image()
    turned = augment(image, AugmentSettings(rotation=20), np.random.default_rng(3))
    both = augment(image, AugmentSettings(rotation=20, brightness=0.1), np.random.default_rng(3))
    difference = both.astype(int) - turned
    inside = (turned > 30) & (turned < 225)
    assert len(np.unique(difference[inside])) == 1
    assert difference[inside][0] != 0


@pytest.mark.parametrize("name", [name for name in AugmentSettings.model_fields if name != "flip"])
@pytest.mark.parametrize("value", [-0.1, 1000, math.nan])
def test_settings_that_have_no_picture_cannot_be_made(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        AugmentSettings(**{name: value})
