"""Several bundles -> one bundle of one graph, whose logits are the mean of the members' calibrated logits.

Calibrated logits are averaged, and not probabilities, since their mean has maps: the Grad-CAM of a sum is the sum of
the Grad-CAMs, so that the mean of the members' maps is exact. On the scale of probabilities each member's share of the
maps would depend on the image.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper, version_converter
from scipy.special import expit, logit

from hilum.bundle import (
    GRAPH,
    OUTPUTS,
    Bundle,
    Calibration,
    Manifest,
    Member,
    Seen,
    Training,
    check_new,
    write_bundle,
)
from hilum.errors import BundleError, UsageError
from hilum.inference import runtime
from hilum.inference.predictor import Predictor
from hilum.progress import Silent, Watcher
from hilum.recipe.architectures import names_another

OPSET = 20
PARITY = 1e-4
AGREE: Mapping[str, Callable[[Manifest], str]] = {
    "findings": lambda manifest: ", ".join(manifest.findings),
    "task": lambda manifest: manifest.task.kind,
    "negatives": lambda manifest: manifest.task.negatives,
    "size": lambda manifest: f"{manifest.input.size} pixels",
    "fit": lambda manifest: manifest.input.fit,
}
"""What members must have in common: its name -> in words."""


def ensemble(
    members: Sequence[Bundle],
    target: Path,
    *,
    name: str = "",
    split_hash: str = "",
    leaks: Sequence[str] = (),
    watch: Watcher | None = None,
) -> Bundle:
    """Make one bundle of several.

    Its logits are the mean of the members' calibrated logits, its maps the mean of theirs in the same units, its
    embedding theirs in a row. Its probabilities are those of the mean logits; its thresholds are the means of the
    members' thresholds on the logit scale. Members stand in the order given; it changes no figure.

    Args:
        members: Two or more single models of the same findings, task, negatives, size and fit.
        target: The new bundle's folder; it must not exist.
        name: What to call it; if empty the members' name with `-ensemble`, or `ensemble` where they have several or one
            that tells of another network.
        split_hash: The hash of the division into what trained a member and what did not, where that is known.
        leaks: What leaks between the two, in sentences, beside what leaks in the members' own splits.
        watch: Receives the progress.

    Raises:
        UsageError: Fewer than two, one that is an ensemble itself, members that do not go together, or something at
            `target`.
        BundleError: A member is damaged, or the merged graph does not compute their mean.
    """
    watch = watch or Silent()
    _check(members, target)
    watch.stage("Joining the members", len(members))
    predictors = [Predictor.load(member) for member in members]
    ordered = [predictor.bundle for predictor in predictors]
    merged = _merge(ordered)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=".ensemble-") as temporary:
        graph_file = Path(temporary) / GRAPH
        onnx.save(merged, graph_file)
        graph = runtime.Graph(graph_file.read_bytes())
        _check_mean(graph, predictors)
        typical = np.concatenate([one.golden.typical for one in ordered], axis=1)
        sealed = write_bundle(
            target,
            _manifest(ordered, name, split_hash, leaks),
            graph=graph_file,
            weights=_named(ordered, Path(temporary)),
            golden=runtime.golden(graph, ordered[0].golden.image, typical),
            calibrated_on=np.unique(np.concatenate([one.calibrated_on for one in ordered]), axis=0),
        )
    watch.finish(f"Sealed {sealed.folder} ({sealed.hash[:16]}), an ensemble of {len(ordered)}")
    return sealed


def mean(of: Sequence[Calibration]) -> Calibration:
    """Return the calibration of a mean of calibrated logits: temperatures are 1, thresholds averaged."""
    first = of[0]
    if first.link == "softmax":
        return Calibration(link="softmax", temperatures=(1.0,), thresholds=(), rule=first.rule)
    thresholds = np.array([calibration.thresholds for calibration in of]).clip(1e-7, 1 - 1e-7)
    rules = " or ".join(dict.fromkeys(calibration.rule for calibration in of))
    return Calibration(
        temperatures=(1.0,) * thresholds.shape[1],
        thresholds=tuple(expit(logit(thresholds).mean(axis=0)).tolist()),
        rule=f"mean of the {len(of)} members' thresholds on the logit scale: {rules}",
    )


def member_facts(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """Return what a report tells of each member: (name, value) in the order of the graph."""
    return tuple(
        (
            f"Member {number}",
            (
                f"bundle {member.hash[:16]}: {one.name}, {one.training.architecture} ({one.training.engine}), trained "
                f"on {one.training.num_train:,} images, validation {one.training.num_val:,}; "
                f"{one.training.split_description}"
            ),
        )
        for number, member in enumerate(manifest.members, start=1)
        for one in (member.manifest,)
    )


def _check(members: Sequence[Bundle], target: Path) -> None:
    if len(members) < 2:
        raise UsageError(f"an ensemble has two or more members, {len(members)} given")
    first = members[0]
    for member in members:
        if member.manifest.members:
            raise UsageError(
                f"{member.folder} is an ensemble itself; give its {len(member.manifest.members)} members instead"
            )
        for what, words in AGREE.items():
            ours, theirs = words(first.manifest), words(member.manifest)
            if ours != theirs:
                raise UsageError(
                    f"{first.folder} and {member.folder} differ in {what}: {ours} against {theirs}; the members of an "
                    f"ensemble have the same {', '.join(AGREE)}"
                )
    check_new(target)


def _merge(members: Sequence[Bundle]) -> onnx.ModelProto:
    """Put the members' graphs side by side behind one image, and the mean after them."""
    protos = [_prefixed(_raised(member), f"m{number}_") for number, member in enumerate(members)]
    sides = [_map_sides(member) for member in members]
    height, width = max(sides)
    graph = onnx.GraphProto(name="ensemble")
    outputs: dict[str, list[str]] = {output: [] for output in OUTPUTS}
    for number, (member, proto, side) in enumerate(zip(members, protos, sides, strict=True)):
        prefix = f"m{number}_"
        graph.node.append(helper.make_node("Identity", ["image"], [f"{prefix}image"]))
        graph.node.extend(proto.graph.node)
        graph.initializer.extend(proto.graph.initializer)
        graph.sparse_initializer.extend(proto.graph.sparse_initializer)
        scale, offset = _scale_and_offset(member, len(members))
        maps, scale_of_maps = f"{prefix}maps", scale
        if side != (height, width):
            # A map's places sum to its logit, so that more of them have smaller shares.
            scale_of_maps = scale * np.float32(side[0] * side[1] / (height * width))
            sides_, resized = f"{prefix}sides", f"{prefix}resized"
            _constant(graph, sides_, np.array([height, width], np.int64))
            graph.node.append(
                helper.make_node("Resize", [maps, "", "", sides_], [resized], mode="linear", axes=[2, 3])
            )
            maps = resized
        _constant(graph, f"{prefix}scale", scale)
        _constant(graph, f"{prefix}offset", offset)
        _constant(graph, f"{prefix}scale_of_maps", scale_of_maps[:, None, None])
        graph.node.extend(
            [
                helper.make_node("Mul", [f"{prefix}logits", f"{prefix}scale"], [f"{prefix}scaled"]),
                helper.make_node("Add", [f"{prefix}scaled", f"{prefix}offset"], [f"{prefix}part"]),
                helper.make_node("Mul", [maps, f"{prefix}scale_of_maps"], [f"{prefix}part_of_maps"]),
            ]
        )
        outputs["logits"].append(f"{prefix}part")
        outputs["maps"].append(f"{prefix}part_of_maps")
        outputs["embedding"].append(f"{prefix}embedding")
    graph.node.extend(
        [
            helper.make_node("Sum", outputs["logits"], ["logits"]),
            helper.make_node("Sum", outputs["maps"], ["maps"]),
            helper.make_node("Concat", outputs["embedding"], ["embedding"], axis=1),
        ]
    )
    size, findings = members[0].manifest.input.size, len(members[0].manifest.findings)
    channels = sum(member.golden.embedding.shape[0] for member in members)
    shapes = {"logits": [findings], "maps": [findings, height, width], "embedding": [channels]}
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", size, size]))
    graph.output.extend(
        helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", *shape])
        for output, shape in shapes.items()
    )
    _share(graph)
    domains = {entry.domain for proto in protos for entry in proto.opset_import} - {"", "ai.onnx"}
    versions = {
        domain: max(e.version for p in protos for e in p.opset_import if e.domain == domain)
        for domain in domains
    }
    return helper.make_model(
        graph,
        opset_imports=[
            helper.make_opsetid("", OPSET),
            *(helper.make_opsetid(*pair) for pair in sorted(versions.items())),
        ],
        functions=[function for proto in protos for function in proto.functions],
        ir_version=max(proto.ir_version for proto in protos),
        producer_name="hilum",
    )


def _raised(member: Bundle) -> onnx.ModelProto:
    """Return a member's graph in the opset of all: tf2onnx writes 18, PyTorch 20."""
    proto = onnx.load_from_string(member.graph)
    version = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if version > OPSET:
        raise BundleError(
            f"{member.folder} has ONNX opset {version}; an ensemble takes up to {OPSET}: update Hilum"
        )
    if version < OPSET:
        try:
            proto = version_converter.convert_version(proto, OPSET)
        except Exception as error:  # the converter's exceptions share no base class
            raise BundleError(
                f"{member.folder} cannot be brought from ONNX opset {version} to {OPSET}: {str(error).splitlines()[0]}"
            ) from None
    return proto


def _prefixed(proto: onnx.ModelProto, prefix: str) -> onnx.ModelProto:
    """Put the graph under names of its own; the values' shapes, which the runtime infers again, are left out."""
    del proto.graph.value_info[:]
    return compose.add_prefix(proto, prefix)


def _map_sides(member: Bundle) -> tuple[int, int]:
    return member.golden.maps.shape[1], member.golden.maps.shape[2]


def _scale_and_offset(member: Bundle, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what leads from a member's logits to its part of the mean: float32 (findings,) each."""
    calibration, count = member.manifest.calibration, len(member.manifest.findings)
    temperatures = np.broadcast_to(np.array(calibration.temperatures), (count,))
    intercepts = np.array(calibration.intercepts or (0.0,) * count)
    return (1 / temperatures / number).astype(np.float32), (intercepts / number).astype(np.float32)


def _constant(graph: onnx.GraphProto, name: str, value: np.ndarray) -> None:
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))


def _share(graph: onnx.GraphProto) -> None:
    """Keep equal tensors once: members with one frozen backbone share its weights, and the runtime its work."""
    first: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    kept = []
    for tensor in graph.initializer:
        unnamed = onnx.TensorProto()
        unnamed.CopyFrom(tensor)
        unnamed.name = ""
        name = first.setdefault(hashlib.sha256(unnamed.SerializeToString()).digest(), tensor.name)
        renamed[tensor.name] = name
        if name == tensor.name:
            kept.append(tensor)
    kept_bytes = [tensor.SerializeToString() for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(onnx.TensorProto.FromString(content) for content in kept_bytes)
    _rename(graph, renamed)


def _rename(graph: onnx.GraphProto, renamed: dict[str, str]) -> None:
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    _rename(inner, renamed)


def _check_mean(graph: runtime.Graph, predictors: Sequence[Predictor]) -> None:
    """Hold the merged graph against the members' own, on their golden images."""
    images = np.stack([predictor.bundle.golden.image for predictor in predictors])
    parts = []
    for predictor in predictors:
        scale, offset = _scale_and_offset(predictor.bundle, len(predictors))
        parts.append(predictor.graph.outputs(images).logits * scale + offset)
    difference = float(np.abs(graph.logits(images) - np.sum(parts, axis=0)).max())
    if not difference <= PARITY:
        raise BundleError(
            f"the merged graph differs from the mean of its members by {difference:.2g} in the logit; at most {PARITY} "
            "expected. Please report this with the members' manifests"
        )


def _named(members: Sequence[Bundle], folder: Path) -> list[Path]:
    """Copy the members' native weights, each under a name of its own."""
    named = []
    for number, member in enumerate(members, start=1):
        for file in member.weights:
            named.append(folder / f"member-{number}-{file.name}")
            shutil.copyfile(file, named[-1])
    return named


def _manifest(members: Sequence[Bundle], name: str, split_hash: str, leaks: Sequence[str]) -> Manifest:
    manifests = [member.manifest for member in members]
    first = manifests[0]
    channels = np.array([member.golden.embedding.shape[0] for member in members], float)
    distances = np.array([manifest.seen.typical_distance for manifest in manifests])
    return Manifest(
        name=name or _name(manifests),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task=first.task,
        input=first.input,
        calibration=mean([manifest.calibration for manifest in manifests]),
        seen=_seen(
            [manifest.seen for manifest in manifests],
            float(np.sqrt(np.average(distances**2, weights=channels))),
        ),
        training=_training([manifest.training for manifest in manifests], split_hash, leaks),
        data=tuple(dict.fromkeys(source for manifest in manifests for source in manifest.data)),
        recipe=first.recipe,
        versions=_versions(manifests),
        members=tuple(Member(hash=member.hash, manifest=member.manifest) for member in members),
    )


def _name(of: Sequence[Manifest]) -> str:
    """Return the members' name; recipes are called after networks, which `--set` may have changed."""
    names, own = {manifest.name for manifest in of}, {manifest.training.architecture for manifest in of}
    if len(names) > 1 or any(names_another(name, own) for name in names):
        return "ensemble"
    return f"{names.pop()}-ensemble"


def _seen(of: Sequence[Seen], typical_distance: float) -> Seen:
    ages = [seen.ages for seen in of if seen.ages]
    sides = [seen.sides for seen in of if seen.sides]
    return Seen(
        sources=tuple(sorted({source for seen in of for source in seen.sources})),
        views=tuple(sorted({view for seen in of for view in seen.views})),
        ages=(min(low for low, _ in ages), max(high for _, high in ages)) if ages else None,
        sides=(min(low for low, _ in sides), max(high for _, high in sides)) if sides else None,
        typical_distance=typical_distance,
    )


def _training(of: Sequence[Training], split_hash: str, leaks: Sequence[str]) -> Training:
    """Return what the members have in common, or one after another; numbers are those of the largest."""

    def all_of(what: str) -> str:
        values = [str(getattr(training, what)) for training in of]
        return "; ".join(dict.fromkeys(values))

    architectures = [training.architecture for training in of]
    numbers = {one: architectures.count(one) for one in dict.fromkeys(architectures)}
    counted = [f"{number} x {one}" if number > 1 else one for one, number in numbers.items()]
    hashes = sorted({training.split_hash for training in of})
    if not split_hash:
        split_hash = hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    fingerprints = sorted({training.data_fingerprint for training in of})
    return of[0].model_copy(
        update={
            "engine": all_of("engine"),
            "architecture": " + ".join(counted),
            "precision": all_of("precision"),
            **{
                number: max(getattr(training, number) for training in of)
                for number in ("num_train", "num_val", "num_test", "num_patients", "epochs", "best_epoch")
            },
            "balance": all_of("balance"),
            "data_fingerprint": hashlib.sha256("\n".join(fingerprints).encode()).hexdigest(),
            "split_method": all_of("split_method"),
            "split_description": all_of("split_description"),
            "split_hash": split_hash,
            "leaky": bool(leaks) or any(training.leaky for training in of),
            "leaks": tuple(dict.fromkeys((*leaks, *(leak for training in of for leak in training.leaks)))),
            "stopped": all_of("stopped"),
            "seconds": sum(training.seconds for training in of),
            **{
                what: all_of(what)
                for what in ("initial_weights", "initial_weights_citation", "initial_weights_licence")
            },
        }
    )


def _versions(manifests: Sequence[Manifest]) -> dict[str, str]:
    packages = dict.fromkeys(package for manifest in manifests for package in manifest.versions)
    return {
        package: " or ".join(
            sorted({manifest.versions[package] for manifest in manifests if package in manifest.versions})
        )
        for package in packages
    }
