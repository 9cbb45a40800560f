"""What a training run takes from how it was begun, or from the machine, where its options leave that open."""

import warnings

import torch

from smoothcert.classifiers.folder import is_model_dir, read_card
from smoothcert.errors import InputError
from smoothcert.machine import has_bf16_units
from smoothcert.training.distributed import world_size
from smoothcert.training.options import TrainConfig


def as_begun(config: TrainConfig, device: torch.device) -> TrainConfig:
    """Return the configuration with its workers and its precision settled.

    A folder that holds a run says both: its weights are a function of them, in the last bits.

    Raises InputError where bf16 is asked for on hardware without units for it, or workers under torchrun.
    """
    identity = read_card(config.out).identity if is_model_dir(config.out) else {}
    autocast = identity.get("settings", {}).get("autocast")
    units = has_bf16_units(device)
    if config.autocast == "auto":
        config = config.model_copy(update={"autocast": autocast or ("bf16" if units else "none")})
    if config.autocast == "bf16" and not units:
        hardware = "GPU" if device.type == "cuda" else "processor"
        slow = f"this {hardware} has no units for bf16, and is slower with it than without"
        if not autocast:
            raise InputError(f"autocast: {slow}: leave it out, or give auto, which is bf16 where there are units")
        warnings.warn(f"the run in {config.out} was begun with bf16, and goes on with it: {slow}", stacklevel=2)
    started = world_size()
    if started > 1:
        if config.workers is not None:
            raise InputError(f"workers: torchrun has started {started} processes already: leave it out")
        return config
    begun = identity.get("processes")
    if begun and config.workers not in (None, begun):
        warnings.warn(f"the run in {config.out} was begun by {begun} process(es), and goes on with as many, not "
                      f"{config.workers}", stacklevel=2)
    return config.model_copy(update={"workers": begun or config.workers or 1})
