"""Notices of an image that a model was not made for."""

from hilum.notices.notice import Wording


def _unlike(*, distance: float, limit: float, share: float) -> str:
    if share == 1:
        return f"unlike the training images (distance {distance:.2f}, at most {limit:.2f} on validation)"
    return f"unlike the training images (distance {distance:.2f}, {share * 100:.0f} % on validation within {limit:.2f})"


PREDICTION = {
    "view-not-in-training": Wording(
        "warning",
        lambda *, view, seen: f"view {view} was not seen in training (seen: {', '.join(seen)})",
        "The image's view is none of the training's; the model was never tested on such.",
    ),
    "age-not-in-training": Wording(
        "warning",
        "age {age:g} years is outside those seen in training ({lowest:g} to {highest:g})",
        "The patient is younger or older than any of the training's.",
    ),
    "unlike-training": Wording(
        "warning",
        _unlike,
        "The embedding lies further from the validation images' mean than nearly all of them do.",
    ),
}
