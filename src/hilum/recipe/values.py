"""What a recipe and a bundle both say of a model: which question it answers, and what image it takes."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hilum.recipe.findings import NO_FINDING, named


class RecipeSection(BaseModel):
    """A part of a recipe: immutable, and no key that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class InputSpec(RecipeSection):
    """The square that a network sees."""

    size: Annotated[int, Field(ge=32, le=2048)] = 224
    """Side of the square in pixels."""
    fit: Literal["squash", "pad", "crop"] = "squash"
    """How the image is brought to a square: squashed, padded with black, or its centre cropped."""


class Task(RecipeSection):
    """Which question is asked of an image."""

    kind: Literal["binary", "multilabel", "multiclass"] = "binary"
    """`binary`: one finding, yes or no. `multilabel`: each finding for itself. `multiclass`: exactly one of them."""
    findings: tuple[str, ...]
    """Any that the data name; one for `binary`. For `multiclass` the classes, of which `No Finding` may be one."""
    negatives: Literal["no-finding", "all-others"] = "all-others"
    """For `binary`: which images without the finding count, those with no finding at all or all others."""

    @field_validator("findings")
    @classmethod
    def _canonical(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("names no finding")
        findings = tuple(named(name) for name in names)
        if not all(findings):
            raise ValueError("holds an empty name")
        if len(set(findings)) < len(findings):
            raise ValueError("names a finding twice")
        return findings

    @model_validator(mode="after")
    def _fits(self) -> "Task":
        if not self.exclusive and NO_FINDING in self.findings:
            raise ValueError(
                f"{NO_FINDING!r} is not a finding: it is what is left when all are absent; "
                "it can be a class of kind = 'multiclass'"
            )
        if self.exclusive and len(self.findings) < 2:
            raise ValueError(
                "kind = 'multiclass' takes two classes or more; use kind = 'binary' for one finding"
            )
        if self.kind == "binary" and len(self.findings) != 1:
            raise ValueError(
                f"kind = 'binary' takes one finding, not {len(self.findings)}; use kind = 'multilabel'"
            )
        if self.kind != "binary" and self.negatives != "all-others":
            raise ValueError("negatives = 'no-finding' goes with kind = 'binary' only")
        return self

    @property
    def exclusive(self) -> bool:
        """Whether exactly one of the findings holds of an image (`multiclass`), so that they are its classes."""
        return self.kind == "multiclass"

    @property
    def noun(self) -> str:
        """What one of `findings` is called: `class` where they exclude each other, else `finding`."""
        return "class" if self.exclusive else "finding"

    def of(self, findings: Sequence[str]) -> "Task":
        """Return the same question about some of the findings only."""
        return self.model_copy(update={"findings": tuple(findings)})
