"""The ledger of a run: each read of its test, a line of JSON."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hilum import files


@dataclass(frozen=True)
class Reads:
    """The reads of a test, the one under way included.

    Attributes:
        count: How many; 0 unknown.
        not_kept: Why the ledger could not keep the one under way; empty where it did.
    """

    count: int = 0
    not_kept: str = ""


@dataclass(frozen=True)
class Ledger:
    """The reads of a run's test; a file that is only ever added to.

    Attributes:
        path: The file; `RunFolder.ledger`.
    """

    path: Path

    def enter(self, *, bundle: str, split: str) -> Reads:
        """Enter a read, now; where the disk refuses it, it counts this once.

        Args:
            bundle: Hash of the bundle that was scored.
            split: Hash of the split whose test was read.
        """
        entry = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "bundle": bundle, "split": split}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            return Reads(self.count(split) + 1, files.refusal(error) or str(error))
        return Reads(self.count(split))

    def count(self, split: str) -> int:
        """Return how often the test of the split with this hash was read."""
        if not self.path.is_file():
            return 0
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return sum(f'"{split}"' in line for line in lines)
