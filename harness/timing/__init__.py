"""How long stages take, how much memory and energy: stopwatches of a run, and measurements of a piece of work."""

from harness.timing.energy import EnergyCounter, energy_counters
from harness.timing.measurement import Measurement, percentile
from harness.timing.measuring import Baseline, measure
from harness.timing.memory import MemoryWatch
from harness.timing.passes import PassClock, shares_of
from harness.timing.stopwatch import StageTime, Stopwatch, stages_of_pass

__all__ = [
    "Baseline",
    "EnergyCounter",
    "Measurement",
    "MemoryWatch",
    "PassClock",
    "StageTime",
    "Stopwatch",
    "energy_counters",
    "measure",
    "percentile",
    "shares_of",
    "stages_of_pass",
]
