"""The certification run: images of a data set, through a plan, to records of a store.

`predict` is the same run with another plan: a plan says what is drawn for an image, and what its counts mean.
"""

from functools import partial

from smoothcert.noise import Noise
from smoothcert.progress import Progress, silent
from smoothcert.runs.fill import fill
from smoothcert.runs.options import CertifyConfig, PredictConfig
from smoothcert.runs.prepare import prepare
from smoothcert.smoothing.isolation import isolated
from smoothcert.stats import Plan, certify_plan, predict_plan
from smoothcert.store.store import Store


@isolated()
def certify(config: CertifyConfig, progress: Progress = silent) -> Store:
    """Certify the images of a data set, or what is left of them; the finished store."""
    return fill(prepare(config, partial(_certify_plan, config)), progress)


@isolated()
def predict(config: PredictConfig, progress: Progress = silent) -> Store:
    """Predict the images of a data set with the smoothed classifier, or what is left of them; the finished store."""
    return fill(prepare(config, partial(_predict_plan, config)), progress)


def _certify_plan(config: CertifyConfig, noise: Noise) -> Plan:
    radius_of = partial(noise.radius, margin=config.margin)
    radii = config.radii if config.n_max is not None else None  # else they only say what to print
    return certify_plan(radius_of, n0=config.n0, n=config.n, radii=radii, curve_loss=config.curve_loss,
                        n_max=config.n_max, alpha=config.alpha, method=config.method, margin=config.margin)


def _predict_plan(config: PredictConfig, noise: Noise) -> Plan:
    return predict_plan(config.alpha, config.n, config.n_max)
