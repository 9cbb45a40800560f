"""Loggers by name: other programs' displays of a run's figures, and those of users' own code."""

from smoothcert.loggers.mlflow import MLflow
from smoothcert.loggers.opening import LOGGERS, Log, check_logger, open_loggers
from smoothcert.loggers.protocol import Figures, Logger
from smoothcert.loggers.tensorboard import TensorBoard
from smoothcert.loggers.wandb import WeightsAndBiases

__all__ = ["LOGGERS", "Figures", "Log", "Logger", "MLflow", "TensorBoard", "WeightsAndBiases", "check_logger",
           "open_loggers"]
