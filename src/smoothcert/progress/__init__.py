"""Progress: typed events of named phases, who receives them, and the bars that show them.

Workload announces itself where it is done (`phase`, `announce`, `count_passes`), and whoever calls it decides with
`reporting` who hears of it. Nothing here ever changes a result.
"""

from smoothcert.progress.meter import Meter, Workload, metering
from smoothcert.progress.reports import (
    Event,
    Kept,
    Phase,
    Progress,
    Reporter,
    SampleRelay,
    announce,
    count_passes,
    counting,
    keep,
    phase,
    relay,
    reporting,
    silent,
)

__all__ = [
    "Event", "Kept", "Meter", "Phase", "Progress", "Reporter", "SampleRelay", "Workload", "announce",
    "count_passes", "counting", "keep", "metering", "phase", "relay", "reporting", "silent",
]
