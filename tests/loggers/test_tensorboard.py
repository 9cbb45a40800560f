"""TensorBoard reads what a run logged, over a resume too."""

import json

import pytest

from smoothcert import train

accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def stop_in_the_second_epoch(event):
    if "epoch 2/2" in event.words:
        raise KeyboardInterrupt


def test_figures_are_those_of_the_metrics_file_and_steps_continue(tmp_path):
    options = {"out": tmp_path / "m", "sigma": 0.25, "epochs": 2, "max_images": 100,
               "log_to": f"tensorboard:{tmp_path / 'tb'}"}
    with pytest.raises(KeyboardInterrupt):
        train("linear", "digits", **options, progress=stop_in_the_second_epoch)
    assert train("linear", "digits", **options).complete
    read = accumulators.EventAccumulator(str(tmp_path / "tb"))
    read.Reload()
    lines = [json.loads(line) for line in (tmp_path / "m" / "metrics.jsonl").read_text().splitlines()]
    assert {f"train/{name}" for name in lines[0]} - {"train/epoch"} == set(read.Tags()["scalars"])
    for name in ("loss", "validation_accuracy", "lr"):
        events = sorted((event.step, event.value) for event in read.Scalars(f"train/{name}"))
        assert [step for step, _ in events] == [1, 2]
        assert [value for _, value in events] == pytest.approx([line[name] for line in lines])
