"""Training images -> a picture: each as it is, and beside it versions as training sees them."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hilum.data.augment import augment
from hilum.data.examples import Examples
from hilum.progress import count
from hilum.recipe import Recipe
from hilum.report import formatting
from hilum.report.drawing import image_grids, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@style.styled
def draw(samples: Examples, recipe: Recipe, *, versions: int) -> "Figure":
    """Draw images with versions of each, one image a row.

    Args:
        samples: The images, prepared as the recipe says.
        recipe: Its `augment` says how far the versions go; drawn by `train.seed`.
        versions: Of each image, beside the image as it is.

    Returns:
        A Figure as wide as a printed page.
    """
    names = samples.table.frame["image"]
    tiles = [
        image_grids.PictureTile(
            formatting.shorten(str(names.iloc[row]).rpartition("/")[2], 40),
            "left: as it is",
            tuple(
                (
                    f"{names.iloc[row]}, version {number}" if number else str(names.iloc[row]),
                    _coloured(pixels),
                )
                for number, pixels in enumerate(_versions(samples, row, recipe, versions))
            ),
        )
        for row in range(len(samples.table))
    ]
    changed = [
        f"{name.replace('_', ' ')} {value:g}" if not isinstance(value, bool) else name
        for name, value in recipe.augment.model_dump().items()
        if value and name != "mixup"
    ]
    subtitle = f"At most: {', '.join(changed)}." if changed else "The recipe changes nothing."
    title = f"{count(len(tiles), 'training image')}, and {versions} versions of each"
    return image_grids.mosaic(tiles, columns=1, title=title, subtitle=subtitle)


def _versions(samples: Examples, row: int, recipe: Recipe, number: int) -> list[NDArray[np.uint8]]:
    [pixels] = samples.cached.images(np.array([row]))
    rng = np.random.default_rng([recipe.train.seed, row])
    return [pixels, *(augment(pixels, recipe.augment, rng) for _ in range(number))]


def _coloured(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(pixels[..., None], 3, axis=2)
