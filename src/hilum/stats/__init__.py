"""Labels and probabilities -> figures with honest intervals: arrays in, numbers out."""

from hilum.stats.agreement import Agreement, agreement, fleiss_kappa
from hilum.stats.calibration import (
    Temperature,
    Threshold,
    choose_thresholds,
    sigmoid_temperatures,
    softmax_temperature,
)
from hilum.stats.comparison import (
    Comparison,
    FindingComparison,
    McNemar,
    Spread,
    compare,
    holm,
    summarise_seeds,
)
from hilum.stats.curves import Curve, Reliability, precision_recall_curve, reliability_curve, roc_curve
from hilum.stats.intervals import Estimate
from hilum.stats.levels import Level, aggregate
from hilum.stats.metrics import METRICS
from hilum.stats.scores import (
    ClassScores,
    FindingScores,
    Scores,
    Summary,
    confusion,
    evaluate,
    evaluate_classes,
)

__all__ = [
    "METRICS",
    "Agreement",
    "ClassScores",
    "Comparison",
    "Curve",
    "Estimate",
    "FindingComparison",
    "FindingScores",
    "Level",
    "McNemar",
    "Reliability",
    "Scores",
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
    "fleiss_kappa",
    "holm",
    "precision_recall_curve",
    "reliability_curve",
    "roc_curve",
    "sigmoid_temperatures",
    "softmax_temperature",
    "summarise_seeds",
]
