"""A bundle and labelled radiographs of another site -> a new bundle: the same weights, calibrated there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from hilum import stats
from hilum.bundle import (
    FORMAT,
    GRAPH,
    Bundle,
    Calibration,
    DataSource,
    Manifest,
    Recalibration,
    check_new,
    write_bundle,
)
from hilum.data.examples import Examples, answering, prepare
from hilum.data.mapping import map_findings
from hilum.data.split import carve
from hilum.data.table import Table
from hilum.errors import DataError, UsageError
from hilum.evaluation import cohort
from hilum.inference.predictor import Predictor
from hilum.notices import Notice, notice
from hilum.progress import Silent, Watcher
from hilum.recipe import parse_recipe
from hilum.stats import Estimate, Resampling
from hilum.stats.calibration import Rule

Metrics = Mapping[str, Mapping[str, Estimate]]

MIN_PATIENTS = 20
"""Patients with, and without, a finding: two numbers are fitted, and ten patients a number are the least."""
ADVISED = 100
"""Below so many of either the new calibration is rough (Collins, Ogundimu & Altman 2016, Stat Med 35:214-226)."""
FOLDS = 5
METRICS = ("ece", "calibration_slope", "calibration_intercept", "brier", "sensitivity", "specificity")
PARTS = ("val", "train", "train+val", "all")


@dataclass(frozen=True)
class Recalibrated:
    """A new bundle, and what calibration was worth before and after.

    Attributes:
        bundle: The new one.
        before: Finding -> metric of `METRICS` -> the parent's calibration on the images that calibrated.
        after: On the same images, each patient's by a calibration fitted on the other patients (five folds).
        findings: Those that were calibrated anew.
        cautions: What speaks against using the model there at all; to be said before anything else.
        notes: What a reader must know.
    """

    bundle: Bundle
    before: Metrics
    after: Metrics
    findings: tuple[str, ...]
    cautions: tuple[Notice, ...]
    notes: tuple[Notice, ...]


@dataclass(frozen=True)
class SiteCalibration:
    """How a bundle is calibrated at a site.

    Attributes:
        part: One of `PARTS` of the site's own split; None: val, else train, else all.
        share: Share of the part's patients that calibrate; None: all of them, half of them where there is no split.
        sensitivity: Choose the thresholds that reach it; None: by the parent's rule.
        site: Its name; the data sets' names if empty.
        seed: Of the share, the folds and the resamples.
    """

    part: str | None = None
    share: float | None = None
    sensitivity: float | None = None
    site: str = ""
    seed: int = 0


DEFAULT = SiteCalibration()


def recalibrate(
    predictor: Predictor,
    table: Table,
    target: Path,
    plan: SiteCalibration = DEFAULT,
    *,
    replicates: int = 2000,
    watch: Watcher | None = None,
) -> Recalibrated:
    """Fit temperature, intercept and threshold of each finding on another site's images; weights and graph stay.

    The test part of the site's own split is never used. What was used is sealed into the new bundle as fingerprints,
    so that `evaluate` leaves those patients out. A finding that grows rarer with the logit is not calibrated: the slope
    would be negative, and turn the order round.

    Args:
        predictor: Of the parent bundle.
        table: The site's images.
        target: The new bundle's folder; it must not exist.
        plan: What calibrates, and how.
        replicates: Bootstrap resamples of patients, for the metrics before and after.
        watch: Receives the progress.

    Raises:
        UsageError: The part or share is not allowed, no finding is common, or there is something at `target`.
        DataError: Too few patients with or without every finding, or every finding grows rarer with the logit.
    """
    watch = watch or Silent()
    parent, manifest = predictor.bundle, predictor.manifest
    check(manifest, target, plan)
    mapped = map_findings(table, manifest.findings, all_needed=manifest.task.exclusive)
    answers = answering(mapped.table, manifest.task.of(mapped.findings), watch=watch)
    chosen = _choose(answers, parent, mapped.findings, plan, watch=watch)
    labels = _labels(chosen.examples.table, manifest, mapped.findings)[chosen.rows]
    patients = chosen.examples.table.patient_keys[chosen.rows]
    positives, negatives = _count(labels, patients)
    new = _enough(manifest, positives, negatives, told=chosen.description, more=chosen.more)
    watch.stage("Running the model", len(chosen.rows))
    logits = cohort.run(predictor, chosen.examples, chosen.rows, watch.advance).logits
    watch.stage("Calibrating")
    site = plan.site or " and ".join(source.name for source in table.sources)
    resampling = Resampling(clusters=patients, replicates=replicates, seed=plan.seed)
    fitting = _Fitting(manifest, new, plan.sensitivity, site)
    probabilities = predictor.probabilities(logits)
    before = fitting.score(labels, probabilities, manifest.decision.decide(probabilities), resampling)
    ranked = {finding: row["auroc"] for finding, row in before.items()}
    fitting, wrong = fitting.without_unranked(logits, labels, before)
    new = fitting.findings
    before = {finding: {name: before[finding][name] for name in METRICS} for finding in new}
    unsure = [finding for finding in new if not _sure(ranked[finding])]
    cautions = (
        *wrong,
        *(notice("ranking-unsure", finding=finding, auroc=_describe(ranked[finding])) for finding in unsure),
    )
    calibration, reasons = fitting.fit(logits, labels)
    held_out = fitting.held_out(logits, labels, _folds(labels, patients, seed=plan.seed))
    after = fitting.score(labels, *held_out, resampling)
    after = {finding: {name: after[finding][name] for name in METRICS} for finding in new}
    record = Recalibration(
        parent=parent.hash,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        site=fitting.site,
        part=chosen.description,
        num_images=len(chosen.rows),
        num_patients=len(np.unique(patients)),
        positives=positives,
        negatives=negatives,
        kept=tuple(finding for finding in manifest.findings if finding not in new),
        cautions=tuple(map(str, cautions)),
        data=tuple(
            DataSource(name=source.name, citation=source.citation, terms=source.terms)
            for source in table.sources
        ),
    )
    sealed = write_bundle(
        target,
        manifest.model_copy(
            update={
                "format": FORMAT,
                "created": record.created,
                "calibration": calibration,
                "recalibrations": (*manifest.recalibrations, record),
            }
        ),
        graph=parent.folder / GRAPH,
        weights=parent.weights,
        golden=parent.golden,
        calibrated_on=_fingerprints(parent, chosen.examples, chosen.rows),
    )
    watch.finish(f"Sealed {sealed.folder} ({sealed.hash[:16]}), of bundle {parent.hash[:16]}")
    return Recalibrated(
        sealed,
        before,
        after,
        new,
        cautions,
        (
            *(notice("findings-mapped", note=note) for note in mapped.notes),
            *chosen.notes,
            *_rough(new, record, manifest, chosen.more),
            *(notice("calibration-limited", reason=reason) for reason in reasons),
        ),
    )


def check(manifest: Manifest, target: Path, plan: SiteCalibration) -> None:
    """Refuse what needs no look at the data; arguments and errors as of `recalibrate`."""
    share, sensitivity = plan.share, plan.sensitivity
    if sensitivity is not None and manifest.task.exclusive:
        raise UsageError(
            "--sensitivity chooses thresholds; of classes the most probable one is called, without any"
        )
    if plan.part == "test":
        raise UsageError("--split test: the test part never calibrates; give val, train or train+val")
    if plan.part not in (None, *PARTS):
        raise UsageError(f"--split {plan.part!r}: {', '.join(PARTS)} expected")
    if share is not None and not 0 < share <= 1:
        raise UsageError(f"--share {share:g}: above 0 and at most 1 expected, for example 0.5")
    if sensitivity is not None and not 0 < sensitivity <= 1:
        raise UsageError(f"--sensitivity {sensitivity:g}: above 0 and at most 1 expected, for example 0.95")
    check_new(target)


@dataclass(frozen=True)
class _Chosen:
    """The rows that calibrate; `more` names a larger part of the site's split, if it has one."""

    examples: Examples
    rows: np.ndarray
    description: str
    notes: tuple[Notice, ...]
    more: str


def _choose(
    table: Table, bundle: Bundle, findings: Sequence[str], plan: SiteCalibration, *, watch: Watcher
) -> _Chosen:
    """Take the part that may calibrate, prepare its images and take a share of its patients."""
    notes, manifest, part = [], bundle.manifest, plan.part
    divided = cohort.divided_as_in_training(table, bundle, watch=watch)
    if divided is not None:
        if part not in (None, "val"):
            raise UsageError(
                f"the bundle was trained on these data: only their val calibrates it, not --split {part}"
            )
        table, part = divided, "val"
        notes.append(notice("own-validation-calibrates"))
    elif names := {source.name for source in table.sources} & set(manifest.seen.sources):
        notes.append(notice("trained-on-this-source", sources=sorted(names)))
    own = table.frame["split"].to_numpy(str)
    parts = sorted(set(own) - {""})
    part = part or next((name for name in ("val", "train") if name in parts), "all")
    if part == "all" and "test" in parts:
        raise UsageError("--split all would calibrate on the site's test part; give val, train or train+val")
    among = np.ones(len(own), bool) if part == "all" else np.isin(own, part.split("+"))
    if not among.any():
        raise UsageError(
            f"no image is in the part {part} of the site's split; it has: {', '.join(parts) or 'none'}"
        )
    whose = "training's split" if divided is not None else "site's own split"
    description = "all of them" if part == "all" else f"the {part} part of the {whose}"
    larger = np.isin(own, ("train", "val"))
    more = f"--split train+val has {larger.sum():,} images" if divided is None and part != "all" else ""
    more = more if larger.sum() > among.sum() else ""
    asked = table.select(among)
    counts = _count(_labels(asked, manifest, findings), asked.patient_keys)
    _enough(manifest, *counts, told=description, more=more)  # before any image is prepared
    share = plan.share
    if share is None:
        share = 1.0 if parts else 0.5
        notes += [notice("half-calibrates")] if share < 1 else []
    examples = prepare(asked, manifest.input, watch=watch)
    if share == 1:
        notes += [notice("all-calibrate")] if part == "all" else []
        return _Chosen(examples, np.arange(len(examples.table)), description, tuple(notes), more)
    drawn = carve(
        examples.table.patient_keys.astype(object),
        examples.table.labels(findings),
        np.ones(len(examples.table), bool),
        size=share * len(examples.table),
        salt=f"{plan.seed} site",
    )
    by_patient = f"{share:.0%} of the patients, seed {plan.seed}"
    description = by_patient if part == "all" else f"{by_patient}, of {description}"
    return _Chosen(examples, np.flatnonzero(drawn), description, tuple(notes), more)


def _labels(table: Table, manifest: Manifest, findings: Sequence[str]) -> np.ndarray:
    """Return labels (rows, all of the bundle's findings); unknown of those that are not among `findings`."""
    labels = np.full((len(table), len(manifest.findings)), np.nan)
    labels[:, [manifest.findings.index(finding) for finding in findings]] = table.labels(findings)
    return labels


def _count(labels: np.ndarray, patients: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Count the patients with an image that has the finding, and with one that has not."""
    counts = [
        tuple(len(np.unique(patients[labels[:, column] == value])) for column in range(labels.shape[1]))
        for value in (1, 0)
    ]
    return counts[0], counts[1]


def _enough(
    manifest: Manifest, positives: Sequence[int], negatives: Sequence[int], *, told: str, more: str
) -> tuple[str, ...]:
    """Return the findings with enough patients; of classes all or none."""
    counts = list(zip(manifest.findings, positives, negatives, strict=True))
    enough = tuple(name for name, with_it, without in counts if min(with_it, without) >= MIN_PATIENTS)
    if not enough or (manifest.task.exclusive and len(enough) < len(counts)):
        numbers = "; ".join(f"{name}: {with_it} with, {without} without" for name, with_it, without in counts)
        raise DataError(
            f"too few patients to calibrate on ({told}; {numbers}); {MIN_PATIENTS} with and {MIN_PATIENTS} without "
            f"are the least. {f'Give another part: {more}' if more else 'Give more images'}"
        )
    return enough


def _rough(new: Sequence[str], record: Recalibration, manifest: Manifest, more: str) -> list[Notice]:
    fewest = min(
        min(record.positives[column], record.negatives[column])
        for column, finding in enumerate(manifest.findings)
        if finding in new
    )
    few = [
        finding
        for finding, *counts in zip(manifest.findings, record.positives, record.negatives, strict=True)
        if finding in record.kept and min(counts) < MIN_PATIENTS
    ]
    notes = [notice("not-recalibrated", findings=few)] if few else []
    if fewest < ADVISED:
        notes.append(notice("rough-calibration", patients=fewest, least=ADVISED, more=more))
    return notes


def _sure(auroc: Estimate) -> bool:
    """Return whether the interval lies above 0.5, which is chance."""
    return auroc.low is not None and auroc.low > 0.5


def _how(slope: Estimate) -> str:
    """Put into words a slope that is not above 0."""
    return "the wrong way round" if slope.high is not None and slope.high < 0 else "no better than chance"


def _describe(estimate: Estimate) -> str:
    if estimate.value is None:
        return "not estimable"
    ends = "no interval" if estimate.low is None else f"95 % {estimate.low:.3f} to {estimate.high:.3f}"
    return f"{estimate.value:.3f}, {ends}"


def _fingerprints(parent: Bundle, examples: Examples, rows: np.ndarray) -> np.ndarray:
    """Return the fingerprints of all that calibrated this bundle or one before it, sorted, each once."""
    return np.unique(np.concatenate([parent.calibrated_on, cohort.fingerprints(examples, rows)]), axis=0)


def _folds(labels: np.ndarray, patients: np.ndarray, *, seed: int) -> np.ndarray:
    """Deal patients into folds, those with a finding and those without in turn; (images,) 0 to FOLDS - 1."""
    names, place = np.unique(patients, return_inverse=True)
    ill = np.zeros(len(names), bool)
    np.logical_or.at(ill, place, (labels == 1).any(axis=1))
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(ill[order], kind="stable")]
    folds = np.empty(len(names), np.int64)
    folds[order] = np.arange(len(names)) % FOLDS
    return np.asarray(folds[place])


@dataclass(frozen=True)
class _Fitting:
    """How logits become a calibration."""

    manifest: Manifest
    findings: tuple[str, ...]
    sensitivity: float | None
    site: str

    def fit(self, logits: np.ndarray, labels: np.ndarray) -> tuple[Calibration, list[str]]:
        """Fit; the reasons say what could not be fitted plainly."""
        old = self.manifest.calibration
        if self.manifest.task.exclusive:
            found = stats.recalibrate_classes(logits, labels.argmax(axis=1), old.temperatures[0])
            update: Mapping[str, object] = {
                "temperatures": (found.temperature,),
                "intercepts": found.intercepts,
            }
            return old.model_copy(update=update), [found.reason] if found.reason else []
        columns = [self.manifest.findings.index(finding) for finding in self.findings]
        fitted = stats.recalibrate_findings(
            logits[:, columns], labels[:, columns], np.array(old.temperatures)[columns]
        )
        temperatures, thresholds = list(old.temperatures), list(old.thresholds)
        intercepts = list(old.intercepts or (0.0,) * len(temperatures))
        for column, one in zip(columns, fitted, strict=True):
            temperatures[column], intercepts[column] = one.temperature, one.intercepts[0]
        calibration = Calibration(
            temperatures=tuple(temperatures), intercepts=tuple(intercepts), thresholds=old.thresholds, rule=""
        )
        rule, sensitivity, told = self._rule()
        chosen = stats.choose_thresholds(
            labels[:, columns],
            calibration.probabilities(logits)[:, columns],
            rule=rule,
            sensitivity=sensitivity,
            findings=self.findings,
        )
        for column, threshold in zip(columns, chosen, strict=True):
            thresholds[column] = threshold.value
        if len(columns) < len(thresholds):
            told += f"; of {', '.join(set(self.manifest.findings) - set(self.findings))}: {old.rule}"
        told_of = [*zip(self.findings, (one.reason for one in fitted), strict=True)]
        told_of += zip(self.findings, (one.reason for one in chosen), strict=True)
        reasons = [f"{finding}: {reason}" for finding, reason in told_of if reason]
        return calibration.model_copy(update={"thresholds": tuple(thresholds), "rule": told}), reasons

    def without_unranked(
        self, logits: np.ndarray, labels: np.ndarray, before: Metrics
    ) -> tuple["_Fitting", tuple[Notice, ...]]:
        """Leave out the findings of which the logits tell nothing here, and say so; refuse where none remains.

        These grow rarer with the logit, or are not surely ranked better than chance while the best temperature lies at
        its bound, where each probability is the prevalence.
        """
        if self.manifest.task.exclusive:
            unranked = self.findings if stats.falls(logits, labels) else ()
        else:
            columns = [self.manifest.findings.index(finding) for finding in self.findings]
            old = np.array(self.manifest.calibration.temperatures)[columns]
            fitted = stats.recalibrate_findings(logits[:, columns], labels[:, columns], old)
            unranked = tuple(
                name
                for name, column, one in zip(self.findings, columns, fitted, strict=True)
                if stats.falls(logits[:, column], labels[:, column])
                or (one.flat and not _sure(before[name]["auroc"]))
            )
        wrong = {
            name: notice(
                "ranked-wrong",
                finding=name,
                how=_how(before[name]["calibration_slope"]),
                slope=_describe(before[name]["calibration_slope"]),
                auroc=_describe(before[name]["auroc"]),
            )
            for name in unranked
        }
        if len(unranked) == len(self.findings):
            reasons = "; ".join(notice.text.partition("; its calibration")[0] for notice in wrong.values())
            raise DataError(
                f"{reasons}. No calibration mends that, and nothing was sealed. See whether the "
                "labels mean the same here and whether images are inverted (`hilum data audit`); if both are right, do "
                "not use this model here, but train one on these data"
            )
        left = tuple(name for name in self.findings if name not in unranked)
        return replace(self, findings=left), tuple(wrong.values())

    def held_out(
        self, logits: np.ndarray, labels: np.ndarray, folds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities (images, findings) and calls, each patient's by the other folds' calibration."""
        probabilities, called = np.zeros(labels.shape), np.zeros(labels.shape, bool)
        for fold in range(FOLDS):
            inside = folds == fold
            calibration, _ = self.fit(logits[~inside], labels[~inside])
            probabilities[inside] = calibration.probabilities(logits[inside])
            called[inside] = calibration.decision.decide(probabilities[inside])
        return probabilities, called

    def score(
        self,
        labels: np.ndarray,
        probabilities: np.ndarray,
        called: np.ndarray,
        resampling: Resampling,
    ) -> dict[str, dict[str, Estimate]]:
        """Score `METRICS` of the findings that are calibrated anew, and their AUROC, with intervals by patient."""
        columns = [self.manifest.findings.index(finding) for finding in self.findings]

        def scored(values: np.ndarray) -> Mapping[str, stats.FindingScores]:
            return stats.evaluate(
                labels[:, columns],
                values[:, columns],
                findings=self.findings,
                resampling=resampling,
            ).findings

        # A call is a probability of 0 or 1: thresholds differ between folds, so that none could be given here.
        by_probability, by_call = scored(probabilities), scored(called.astype(np.float64))
        return {
            finding: {
                name: (by_call if name in METRICS[-2:] else by_probability)[finding].metrics[name]
                for name in (*METRICS, "auroc")
            }
            for finding in self.findings
        }

    def _rule(self) -> tuple[Rule, float, str]:
        """Return the rule of the thresholds, its sensitivity, and both in words."""
        settings = parse_recipe(self.manifest.recipe).calibrate
        rule = settings.threshold if self.sensitivity is None else "sensitivity"
        sensitivity = settings.sensitivity if self.sensitivity is None else self.sensitivity
        words = {
            "youden": f"Youden's J on {self.site}",
            "sensitivity": f"sensitivity {sensitivity:g} on {self.site}",
            "fixed": "fixed at 0.5",
        }
        return rule, sensitivity, words[rule]
