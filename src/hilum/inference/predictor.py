"""A loaded bundle and images -> Predictions: the one way from images to what a model gives for them."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Self, TypeVar

import numpy as np

from hilum.bundle import Bundle, Manifest, Seen, read_bundle
from hilum.errors import ImageError, LayoutError, UsageError
from hilum.files import printable, walk
from hilum.images import IMAGE_SUFFIXES, Location, Prepared, Source, prepare, prepare_and_read
from hilum.inference.explanation import NO_BOXES, Case, make_cases, reduce_picture
from hilum.inference.prediction import Prediction
from hilum.inference.runtime import Graph, Outputs, check_golden, typical_distance
from hilum.notices import Notice, notice

BATCH = 16

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

    def predict(self, sources: Iterable[Source], *, maps: bool = False) -> Iterator[Prediction]:
        """Predict images; each is decoded once and runs through the graph once, while the next are being decoded.

        Args:
            sources: Images of any form, in any mix; taken from the iterable as they are needed.
            maps: Give maps, and pictures to draw them on, too.

        Yields:
            One an image, in their order; an image that cannot be read has its reason in `error`. Images without a name
            are called by their number, from 1.
        """

        def read(source: Source) -> tuple[Prepared, np.ndarray | None] | ImageError:
            size, fit = self.manifest.input.size, self.manifest.input.fit
            try:
                if not maps:
                    return prepare(source, size, fit), None
                prepared, radiograph = prepare_and_read(source, size, fit)
                return prepared, reduce_picture(radiograph.grey)
            except ImageError as error:
                return error

        numbers = count(1)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ahead = _read_ahead(pool, read, sources, number=BATCH if maps else 4 * BATCH)
            while batch := list(islice(ahead, BATCH)):
                named = [(_name(source, next(numbers)), item) for source, item in batch]
                yield from self._predict(named, maps=maps)

    def explain(
        self,
        source: Source,
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


def find_images(paths: Iterable[Path]) -> list[Location]:
    """Find the image files that paths name: files, members of archives (`a.zip::b.png`), and folders' content.

    Raises:
        UsageError: A path does not exist.
        LayoutError: A folder holds no image.
    """
    found: list[Location] = []
    for path in paths:
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


def _name(source: Source, number: int) -> str:
    return printable(str(source)) if isinstance(source, str | Path | Location) else f"image {number}"


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
