"""The goals, and what was measured beside them."""

from pages import Section, table, write_page

COLUMNS = {"linear (logit space)": ("linear",), "MNIST CNN": ("cnn", "lenet"), "ResNet-20": ("resnet20",),
           "ResNet-110": ("resnet110",)}
ROWS = {
    "samples/s, end to end, one thread": ("ratio", (70, 6, 3.3, 2.8)),
    "time to certified accuracy at one radius, same alpha": ("radius", (1500, 150, 80, 70)),
    "full curve, at most 1% radius loss": ("curve", (100, 9, 5.5, 4.5)),
}
PRECISIONS = {
    "int8 over the plain reference": ("{} int8 openvino over reference", (8.5, 14, 10.5, 8)),
    "int8 over float32": ("{} int8 openvino over float32", (2.5, 2.8, 2.9, 3)),
    "bf16 over float32": ("{} bf16 openvino over float32", (1.8, 1.8, 1.8, 1.9)),
    "time to certified accuracy at one radius, int8": ("{} int8 radius", (900, 2600, 650, 500)),
}
GPU = {"ResNet-110, float32": ("resnet110 float32", 6), "ResNet-110, bf16": ("resnet110 bf16", 12),
       "ResNet-110, fp16": ("resnet110 fp16", 12), "MNIST CNN, float32": ("cnn float32", 10),
       "LeNet, float32": ("lenet float32", 20)}
RECORDS = {"table in seconds": ("table s", 3), "report in seconds": ("report s", 15),
           "its page in MB": ("report MB", 12), "recertify --top-k 3 in seconds": ("recertify s", 30)}


OPENING = """# Benchmarks

`make bench` measures all of this but the GPU's part in about ten minutes, `make bench PART="speed memory"` parts of it;
sections of parts that were not run stay as they were. `python benchmarks/gpu.py` measures the GPU's, where there is
one.
"""


def write_results(sections: dict[str, Section]) -> str:
    """Write RESULTS.md: the goals, and all sections; its text."""
    return write_page("\n".join([OPENING, *goal_lines(sections)]), sections)


def goal_lines(sections: dict[str, Section]) -> list[str]:
    """The table of goals: ratios over the plain reference, in one run, measured / goal."""
    figures = {key: value for found in sections.values() for key, value in found.figures.items()}
    rows = []
    for title, (kind, goals) in ROWS.items():
        cells = [_cell({name: figures.get(f"{name} {kind}") for name in names}, goal)
                 for names, goal in zip(COLUMNS.values(), goals, strict=True)]
        rows.append([title, *cells])
    lines = ["## Goals: how many times faster than the plain reference at batch 1,000, measured (goal)", ""]
    lines += table(["", *COLUMNS], rows)
    lines += [_which_cnn(figures), "", _memory(figures), "", _records(figures), ""]
    rows = [[title, *(_cell({"": figures.get(key.format(name))}, goal)
                      for name, goal in zip(("lenet", "cnn", "resnet20", "resnet110"), goals, strict=True))]
            for title, (key, goals) in PRECISIONS.items()]
    lines += table(["on a CPU with VNNI and bf16 units", "LeNet", "MNIST CNN", "ResNet-20", "ResNet-110"], rows)
    if any(key in figures for key, _ in GPU.values()):
        lines += ["GPU: " + "; ".join(f"{title} {_cell({'': figures.get(key)}, goal)}"
                                      for title, (key, goal) in GPU.items()) + ".", ""]
    return lines


def _cell(measured: dict[str, float | None], goal: float, least: bool = True) -> str:
    """Figures, and a goal that is the least (or the most) they should be."""
    told = [f"{name + ' ' if len(measured) > 1 else ''}{_number(value)}" for name, value in measured.items()
            if value is not None]
    reached = all(value is None or (value >= goal if least else value <= goal) for value in measured.values())
    return f"{', '.join(told) or 'not measured'} ({_number(goal)}){'' if reached or not told else ' missed'}"


def _which_cnn(figures: dict[str, float]) -> str:
    sizes = [f"`{name}` takes {figures[f'{name} MFLOP']:.3g}" for name in ("cnn", "lenet")
             if f"{name} MFLOP" in figures]
    told = f": of this package's {' and '.join(sizes)}, so both are given" if sizes else ""
    return f"The goals' MNIST CNN takes 8.5 MFLOP a sample{told}. Times of the ResNets are products, see below."


def _memory(figures: dict[str, float]) -> str:
    peaks = [value for key, value in figures.items() if key.startswith("MiB above ")]
    if not peaks:
        return "Memory above the model, MiB: not measured (400)."
    one, more_samples, more_images = (figures[f"MiB above linear, gaussian, auto, {n}, {images}"]
                                      for n, images in ((1000, 1), (1_000_000, 1), (1000, 2000)))
    return (f"Memory above the model, MiB: at most {max(peaks):.0f} (400){'' if max(peaks) < 400 else ' missed'}; "
            f"{more_samples - one:+.0f} from n = 1,000 to 1,000,000, {more_images - one:+.0f} from 1 to 2,000 images.")


def _records(figures: dict[str, float]) -> str:
    cells = (f"{title} {_cell({'': figures.get(key)}, goal, least=False)}"
             for title, (key, goal) in RECORDS.items())
    return f"A store of 1,000,000 records: {'; '.join(cells)}."


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.3g}"
