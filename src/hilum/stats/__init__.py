"""Labels and probabilities -> metrics with honest intervals: arrays in, numbers out."""

from hilum.stats.aggregation import GroupPredictions, aggregate
from hilum.stats.agreement import Agreement, agreement, fleiss_kappa
from hilum.stats.calibration import (
    Temperature,
    Threshold,
    choose_thresholds,
    sigmoid_temperatures,
    softmax_temperature,
)
from hilum.stats.comparison import (
    FindingComparison,
    McNemar,
    ModelComparison,
    Spread,
    compare,
    holm,
    summarise_seeds,
)
from hilum.stats.curves import Curve, Reliability, precision_recall_curve, reliability_curve, roc_curve
from hilum.stats.intervals import Estimate
from hilum.stats.metrics import METRICS
from hilum.stats.recalibration import SlopeAndIntercept, falls, recalibrate_classes, recalibrate_findings
from hilum.stats.resampling import Resampling
from hilum.stats.scores import (
    ClassScores,
    FindingScores,
    Scores,
    Summary,
    confusion,
    evaluate,
    evaluate_classes,
)
from hilum.stats.unpaired import unpaired_difference

__all__ = [
    "METRICS",
    "Agreement",
    "ClassScores",
    "Curve",
    "Estimate",
    "FindingComparison",
    "FindingScores",
    "GroupPredictions",
    "McNemar",
    "ModelComparison",
    "Reliability",
    "Resampling",
    "Scores",
    "SlopeAndIntercept",
    "Spread",
    "Summary",
    "Temperature",
    "Threshold",
    "aggregate",
    "agreement",
    "choose_thresholds",
    "compare",
    "confusion",
    "evaluate",
    "evaluate_classes",
    "falls",
    "fleiss_kappa",
    "holm",
    "precision_recall_curve",
    "recalibrate_classes",
    "recalibrate_findings",
    "reliability_curve",
    "roc_curve",
    "sigmoid_temperatures",
    "softmax_temperature",
    "summarise_seeds",
    "unpaired_difference",
]
