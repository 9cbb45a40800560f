"""What each run takes: one class a verb, one field an option, its text the option's help.

A YAML file and the command line fill the same fields (flags win), and all mistakes are reported together.
"""

from smoothcert.runs.config.attacking import AttackConfig
from smoothcert.runs.config.base import Config, DataConfig, MachineConfig
from smoothcert.runs.config.bounding import DistributionalConfig
from smoothcert.runs.config.reproducing import RecertifyConfig, ReproduceConfig
from smoothcert.runs.config.sampling import CertifyConfig, PredictConfig, RunConfig, SamplingConfig
from smoothcert.runs.config.training import TrainConfig
from smoothcert.runs.config.verifying import VerifyConfig

__all__ = [
    "AttackConfig", "CertifyConfig", "Config", "DataConfig", "DistributionalConfig", "MachineConfig", "PredictConfig",
    "RecertifyConfig", "ReproduceConfig", "RunConfig", "SamplingConfig", "TrainConfig", "VerifyConfig",
]
