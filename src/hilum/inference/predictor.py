"""A loaded bundle and images -> Predictions: the one way from images to what a model gives for them."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Self, TypeVar, cast

import numpy as np
from PIL import Image

from hilum.bundle import Bundle, Manifest, Seen, read_bundle
from hilum.errors import ImageError, LayoutError, UsageError
from hilum.files import printable, walk
from hilum.images import IMAGE_SUFFIXES, Location, Prepared, Source, prepare, prepare_and_read
from hilum.images.location import MAX_BYTES
from hilum.inference.explanation import NO_BOXES, Case, make_cases, reduce_picture
from hilum.inference.prediction import Prediction
from hilum.inference.runtime import Graph, Outputs, check_golden, typical_distance
from hilum.notices import Notice, notice

BATCH = 16
EXPECTED = "a path, an open file, a file's bytes, a NumPy array or a PIL image"

Given = Source | IO[bytes]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Predictor:
    """A bundle with its graph running.

    Attributes:
        bundle: The bundle.
        graph: Its graph.
    """

    bundle: Bundle
    graph: Graph

    @classmethod
    def load(
        cls,
        folder: Path | Bundle,
        *,
        expect: str | None = None,
        provider: str | None = None,
        threads: int | None = None,
    ) -> Self:
        """Read a bundle, start its graph, and check that it reproduces the golden output sealed with it.

        Args:
            folder: A bundle, its folder, or a run's folder that holds one.
            expect: The hash that it must have, or its beginning.
            provider: Execution provider of ONNX Runtime; None: `$HILUM_PROVIDER`, or the CPU.
            threads: Processor threads; None: all.

        Raises:
            UsageError: There is no bundle or no such provider.
            BundleError: The bundle is damaged, or computes something else here than where it was sealed.
        """
        bundle = folder if isinstance(folder, Bundle) else read_bundle(Path(folder), expect=expect)
        graph = Graph(bundle.graph, provider=provider, threads=threads)
        check_golden(graph, bundle.golden)
        return cls(bundle, graph)

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    @property
    def runtime(self) -> str:
        """What runs the graph, in words."""
        return self.graph.runtime

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Turn logits (n, findings) into calibrated probabilities, float64 in [0, 1]."""
        return self.manifest.calibration.probabilities(logits)

    def distance(self, embedding: np.ndarray) -> np.ndarray:
        """Return how far images are from the validation images, (n, channels) -> (n,): see `typical_distance`."""
        return typical_distance(embedding, self.bundle.golden.typical)

    def predict(self, sources: Iterable[Given] | Given, *, maps: bool = False) -> Iterator[Prediction]:
        """Predict images; each is decoded once and runs through the graph once, while the next are being decoded.

        Args:
            sources: Images of any form, in any mix, open files among them; taken from the iterable as they are needed.
                One alone, such as a path or an array, is one image; an array (n, height, width) holds n.
            maps: Give maps, and pictures to draw them on, too.

        Yields:
            One an image, in their order; an image that cannot be read has its reason in `error`. Images without a name
            are called by their number, from 1.

        Raises:
            UsageError: What is given can be no image.
        """

        def read(named: tuple[str, Source]) -> tuple[Prepared, np.ndarray | None] | ImageError:
            source = named[1]
            size, fit = self.manifest.input.size, self.manifest.input.fit
            try:
                if not maps:
                    return prepare(source, size, fit), None
                prepared, radiograph = prepare_and_read(source, size, fit)
                return prepared, reduce_picture(radiograph.grey)
            except ImageError as error:
                return error

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ahead = _read_ahead(pool, read, _named(sources), number=BATCH if maps else 4 * BATCH)
            while batch := list(islice(ahead, BATCH)):
                yield from self._predict([(name, item) for (name, _), item in batch], maps=maps)

    def explain(
        self,
        source: Given,
        *,
        name: str | None = None,
        findings: Sequence[str] | None = None,
        labels: Sequence[float] | None = None,
        boxes: np.ndarray = NO_BOXES,
        truth: str = "",
    ) -> list[Case]:
        """Explain one image, called `name` or by its path; the other arguments and the cases as of `make_cases`.

        Raises:
            ImageError: The image cannot become a radiograph.
        """
        prediction = next(self.predict([source], maps=True))
        if prediction.error:
            raise ImageError(prediction.error)
        prediction = replace(prediction, image=name or prediction.image)
        return make_cases(self.manifest, prediction, findings, labels=labels, boxes=boxes, truth=truth)

    def run_squares(
        self, batches: Iterable[np.ndarray], on_batch: Callable[[int], None] = lambda _done: None
    ) -> Outputs:
        """Run prepared squares, such as those of the cache; the maps, which nobody needs of so many, come empty.

        Args:
            batches: uint8 (images, size, size) each.
            on_batch: Called with how many images are done.
        """
        logits: list[np.ndarray] = []
        embeddings: list[np.ndarray] = []
        done = 0
        for squares in batches:
            outputs = self.graph.outputs(squares)
            logits.append(outputs.logits)
            embeddings.append(outputs.embedding)
            done += len(squares)
            on_batch(done)
        joined = np.concatenate(logits)
        return Outputs(joined, np.zeros((len(joined), 0, 0, 0), np.float32), np.concatenate(embeddings))

    def _predict(
        self, named: list[tuple[str, tuple[Prepared, np.ndarray | None] | ImageError]], *, maps: bool
    ) -> Iterator[Prediction]:
        """Run a batch of images."""
        squares = [item[0].pixels for _, item in named if not isinstance(item, ImageError)]
        if squares:
            outputs = self.graph.outputs(np.stack(squares))
            probabilities = self.probabilities(outputs.logits)
            called = np.where(self.manifest.decision.decide(probabilities), "present", "absent")
            distances = self.distance(outputs.embedding)
        row = 0
        for name, item in named:
            if isinstance(item, ImageError):
                yield Prediction(name, np.zeros(0), np.zeros(0), (), (), str(item))
                continue
            prepared, picture = item
            yield Prediction(
                image=name,
                logits=outputs.logits[row],
                probabilities=probabilities[row],
                decisions=tuple(called[row].tolist()),
                notices=(
                    *prepared.provenance.notices,
                    *_unseen(prepared, float(distances[row]), self.manifest.seen),
                ),
                embedding=outputs.embedding[row],
                maps=outputs.maps[row] if maps else None,
                picture=picture,
            )
            row += 1


def find_images(paths: Iterable[Path | str] | Path | str) -> list[Location]:
    """Find the image files that paths name: files, members of archives (`a.zip::b.png`), and folders' content.

    Args:
        paths: One path or several.

    Raises:
        UsageError: A path does not exist, or is none.
        LayoutError: A folder holds no image.
    """
    found: list[Location] = []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        if not isinstance(path, str | Path):
            raise UsageError(
                f"a path is expected, not {_kind(path)}; Predictor.predict takes images of any form"
            )
        location = Location.parse(str(path))
        if location.path.is_dir():
            inside = sorted(_images_in(location.path))
            if not inside:
                raise LayoutError(f"{path} holds no image ({', '.join(IMAGE_SUFFIXES)})")
            found += [Location(file) for file in inside]
        elif location.path.exists():
            found.append(location)
        else:
            raise UsageError(
                f"{path} does not exist; give image files, folders of them, or ARCHIVE.zip::MEMBER"
            )
    return found


def _images_in(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder that may be images, links that lead nowhere too: whoever reads them is told."""
    for place, _, names in walk(folder):
        for name in names:
            suffix = Path(name).suffix.lower()
            # Names of exported DICOM files often have no suffix, or end in a number.
            expected = suffix in (*IMAGE_SUFFIXES, "") or suffix[1:].isdigit()
            if expected and not name.startswith("."):
                yield place / name


def _named(sources: Iterable[Given] | Given) -> Iterator[tuple[str, Source]]:
    """Yield each image with its name, its path or else its number; an open file is read."""
    for number, source in enumerate(several(sources), start=1):
        if isinstance(source, str | Path | Location):
            yield printable(str(source)), source
        elif isinstance(source, bytes | np.ndarray | Image.Image):
            yield f"image {number}", source
        elif hasattr(source, "read"):
            content = source.read(MAX_BYTES + 1)
            if not isinstance(content, bytes):
                raise UsageError(f"image {number} was opened as text; open it with mode 'rb'")
            name = getattr(source, "name", None)
            yield printable(name) if isinstance(name, str) and name else f"image {number}", content
        else:
            raise UsageError(f"image {number} is {_kind(source)}; {EXPECTED} expected")


def several(sources: Iterable[Given] | Given) -> Iterable[Given]:
    """Return images to go through; one alone is a list of one."""
    if isinstance(sources, np.ndarray):
        colours = 4  # at most, in the last axis of a picture
        return sources if sources.ndim > 2 and sources.shape[-1] > colours else [sources]
    if isinstance(sources, str | Path | Location | bytes | Image.Image) or hasattr(sources, "read"):
        return [cast(Given, sources)]
    if not isinstance(sources, Iterable):
        raise UsageError(f"what was given is {_kind(sources)}; {EXPECTED}, or several of them, expected")
    return sources


def _kind(given: object) -> str:
    return f"of type {type(given).__module__}.{type(given).__qualname__}".replace("builtins.", "")


def _unseen(prepared: Prepared, distance: float, seen: Seen) -> Iterator[Notice]:
    """Yield in what an image differs from those of training; what its file does not tell cannot be compared."""
    view, age = prepared.provenance.view, prepared.provenance.age
    if view and seen.views and view not in seen.views:
        yield notice("view-not-in-training", view=view, seen=list(seen.views))
    if not math.isnan(age) and seen.ages and not seen.ages[0] <= age <= seen.ages[1]:
        yield notice("age-not-in-training", age=age, lowest=seen.ages[0], highest=seen.ages[1])
    if distance > seen.typical_distance:
        yield notice(
            "unlike-training", distance=distance, limit=seen.typical_distance, share=seen.typical_share
        )


def _read_ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], *, number: int
) -> Iterator[tuple[Item, Result]]:
    """Pair items with their results in order, `number` ahead of whoever reads: never all at once in memory."""
    rest = iter(items)
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    for item in islice(rest, number):
        waiting.append((item, pool.submit(work, item)))
    while waiting:
        item, future = waiting.popleft()
        yield item, future.result()
        waiting.extend((following, pool.submit(work, following)) for following in islice(rest, 1))
