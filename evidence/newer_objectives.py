"""smoothmix and cat-rs on MNIST beside Gaussian augmentation: three rows of the recipe `mnist-objectives`."""

from objectives import measure


def main() -> str:
    note = (" Much did beside cat-rs, whose seconds include the network that judges for it; "
            "[what a step costs](../benchmarks.md) was measured alone.")
    return measure(["gaussian", "smoothmix", "cat-rs"], "SmoothMix and CAT-RS", note)
