"""Evaluations of three tasks from simulated predictions, and the reports written from them, once a session."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hilum import stats
from hilum.bundle import DecisionRule
from hilum.evaluation.evaluation import Evaluation
from hilum.inference.explanation import Case
from hilum.notices import notice
from hilum.recipe import Task
from hilum.recipe.findings import NIH_FINDINGS
from hilum.report.evaluation import page

HOSTILE = '"><script>alert(1)</script>/=cmd|x, [a](b)\n.png'


@pytest.fixture(scope="session")
def make_case() -> Callable[..., Case]:
    """Makes a case whose left half has no evidence and whose right half has some of both signs."""

    def make(
        *,
        label: float = 1.0,
        probability: float = 0.9,
        strength: float = 1.0,
        size: tuple[int, int] = (120, 100),
        image: str = "a.png",
        finding: str = "Pneumonia",
        threshold: float | None = 0.5,
        called: bool | None = None,
        truth: str = "",
    ) -> Case:
        rng = np.random.default_rng(int(strength * 100))
        grey = rng.uniform(size=size).astype(np.float32)
        evidence = np.zeros(size, np.float32)
        down, across = np.mgrid[0 : size[0], 0 : size[1]] / np.array(size)[:, None, None]
        half = across > 0.5
        evidence[half] = (strength * np.sin(6.28 * down) * (across - 0.5) * 2)[half]
        boxes = np.array([[0.55, 0.2, 0.3, 0.3]])
        called = probability >= 0.5 if called is None else called
        return Case(image, grey, evidence, boxes, finding, label, probability, threshold, called, truth)

    return make


@pytest.fixture(scope="session")
def make_evaluation(make_case: Callable[..., Case]) -> Callable[..., Evaluation]:
    """Makes an evaluation: `binary`, `multilabel` (`num_findings`, the last without positives) or `multiclass`."""

    def make(
        kind: str, *, num_findings: int = 3, num_images: int = 240, seed: int = 0, **changes: object
    ) -> Evaluation:
        rng = np.random.default_rng(seed)
        patients = np.array([f"p{number}" for number in rng.integers(0, num_images * 2 // 3, num_images)])
        thresholds, title = np.array([0.5]), "a-recipe"
        if kind == "multiclass":
            findings: tuple[str, ...] = ("No Finding", "Bacterial Pneumonia", "Viral Pneumonia")
            truth = rng.choice(3, num_images, p=[0.4, 0.35, 0.25])
            labels = (truth[:, None] == np.arange(3)).astype(np.float32)
            logits = rng.normal(size=labels.shape) + 2 * labels
            probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            classes = stats.evaluate_classes(
                truth,
                probabilities,
                names=findings,
                resampling=stats.Resampling(clusters=patients, replicates=100),
            )
            scores, thresholds = classes, ()
        else:
            findings = ("Pneumonia",) if kind == "binary" else NIH_FINDINGS[:num_findings]
            prevalence = np.array([0.6]) if kind == "binary" else np.linspace(0.3, 0.02, num_findings)
            labels = (rng.uniform(size=(num_images, len(findings))) < prevalence).astype(np.float32)
            if kind == "multilabel":
                labels[:, -1] = 0
                labels[rng.uniform(size=labels.shape) < 0.02] = np.nan
            logits = rng.normal(size=labels.shape) + 2.5 * np.nan_to_num(labels) - 1
            probabilities, thresholds = 1 / (1 + np.exp(-logits)), np.full(len(findings), 0.5)
            scores = stats.evaluate(
                labels,
                probabilities,
                thresholds=thresholds,
                findings=findings,
                resampling=stats.Resampling(clusters=patients, replicates=100),
            )
        epochs = np.arange(1, 7)
        history = pd.DataFrame(
            {
                "epoch": epochs,
                "train_loss": 1 / epochs,
                "val_loss": 1.2 / epochs,
                "val_auroc": 1 - 0.1 / epochs,
            }
        )
        outcomes = ((1.0, 0.9), (0.0, 0.7))
        cases = tuple(
            make_case(label=label, probability=probability, finding=findings[0], image=f"case{number}.png")
            for number, (label, probability) in enumerate(outcomes)
        )
        settings = {
            "title": title,
            "bundle": "0123456789abcdef" * 4,
            "task": Task(kind=kind, findings=findings),
            "data": "simulated",
            "split": "test",
            "split_description": "by patient, seed 0",
            "leaky": False,
            "images": np.array([f"image{number}.png" for number in range(num_images)]),
            "patients": patients,
            "labels": labels,
            "logits": logits.astype(np.float32),
            "probabilities": probabilities,
            "decision": DecisionRule(tuple(thresholds) or None, "Youden's J on validation"),
            "scores": scores,
            "test_reads": 1,
            "history": history,
            "best_epoch": 4,
            "cases": cases,
            "facts": (("Engine", "torch 2"),),
            "citations": ("Somebody et al. 2018.",),
        }
        return Evaluation(**{**settings, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session", params=["binary", "multilabel", "multiclass"])
def written(
    request: pytest.FixtureRequest,
    make_evaluation: Callable[..., Evaluation],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Evaluation]:
    """A report's folder and what it was written from, for each task."""
    changes = (
        {} if request.param == "binary" else {"cases": ()}
    )  # drawing cases takes longest; once is enough
    evaluation = make_evaluation(request.param, **changes)
    folder = tmp_path_factory.mktemp(request.param) / "evaluation"
    page.write(folder, evaluation)
    return folder, evaluation


@pytest.fixture(scope="session")
def bare(make_evaluation: Callable[..., Evaluation], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report over an older one: leaky, without history, images and an AUROC, titled like a formula."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "plots").mkdir()
    (folder / "plots" / "gradcam_wrong.png").write_bytes(b"old")
    evaluation = make_evaluation("binary", title="=1+1", leaky=True, history=None, cases=())
    nothing = {"value": None, "low": None, "high": None, "reason": "not estimable: 0 of them"}
    evaluation.metrics["findings"]["Pneumonia"]["auroc"] = nothing
    page.write(folder, evaluation)
    return folder


@pytest.fixture(scope="session")
def hostile(
    make_evaluation: Callable[..., Evaluation],
    make_case: Callable[..., Case],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a report whose every text from outside is hostile."""
    images = np.array([f"image{number}.png" for number in range(240)], dtype=object)
    images[0] = HOSTILE
    plain = make_evaluation("binary")
    evaluation = make_evaluation(
        "binary",
        title=HOSTILE,
        task=plain.task.of([HOSTILE]),
        data=HOSTILE,
        split_description=HOSTILE,
        decision=DecisionRule((0.5,), HOSTILE),
        images=images,
        scores=replace(plain.scores, findings={HOSTILE: plain.scores.findings["Pneumonia"]}),
        cases=(make_case(image=HOSTILE, finding=HOSTILE),),
        facts=((HOSTILE, HOSTILE),),
        warnings=(notice("rows-left-out", note=HOSTILE),),
        citations=(HOSTILE,),
    )
    folder = tmp_path_factory.mktemp("hostile")
    page.write(folder, evaluation)
    return folder
