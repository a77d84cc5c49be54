"""The environment of a data-parallel run -> which of its processes this is."""

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Processes:
    """The processes that train one model together.

    Attributes:
        rank: Of this process, from 0; only 0 writes files and speaks.
        devices: Processes on each machine.
        machines: How many machines.
    """

    rank: int
    devices: int
    machines: int

    @property
    def number(self) -> int:
        """All of them."""
        return self.devices * self.machines

    @property
    def leads(self) -> bool:
        """Whether this one writes files and speaks."""
        return self.rank == 0


def find_processes(devices: int, environment: Mapping[str, str] = os.environ) -> Processes:
    """Read what torchrun or Slurm said when they started this process; else `devices` on this machine.

    Args:
        devices: How many the user asked for; a launcher's own number goes before it.
        environment: Its variables.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        here, all_of_them = int(environment["LOCAL_WORLD_SIZE"]), int(environment["WORLD_SIZE"])
        return Processes(int(environment["RANK"]), here, max(all_of_them // here, 1))
    tasks = int(environment.get("SLURM_NTASKS", 1))
    if tasks > 1 and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        machines = int(environment.get("SLURM_NNODES", 1))
        return Processes(int(environment.get("SLURM_PROCID", 0)), tasks // machines, machines)
    return Processes(int(environment.get("LOCAL_RANK", 0)), devices, 1)
