"""A sealed folder <-> a Bundle: one framework-free model with all that is needed to use and to judge it."""

from hilum.bundle.decision import MOST_PROBABLE, DecisionRule
from hilum.bundle.folder import (
    CALIBRATED_ON,
    GOLDEN,
    GRAPH,
    MANIFEST,
    OUTPUTS,
    SUMS,
    Bundle,
    Golden,
    check_new,
    read_bundle,
    write_bundle,
)
from hilum.bundle.manifest import (
    FORMAT,
    INTENDED_USE,
    Calibration,
    DataSource,
    Manifest,
    Member,
    Recalibration,
    Seen,
    Training,
)

__all__ = [
    "CALIBRATED_ON",
    "FORMAT",
    "GOLDEN",
    "GRAPH",
    "INTENDED_USE",
    "MANIFEST",
    "MOST_PROBABLE",
    "OUTPUTS",
    "SUMS",
    "Bundle",
    "Calibration",
    "DataSource",
    "DecisionRule",
    "Golden",
    "Manifest",
    "Member",
    "Recalibration",
    "Seen",
    "Training",
    "check_new",
    "read_bundle",
    "write_bundle",
]
