"""Float8 products in the blocks: the loss of one run with and without them, and on a GPU that has them the speed.

    python -m benchmarks.float8 [--steps 300] [--rounds 9] [--json PATH] [--picture docs/float8.png]

loss   the same run, weights, data and order, in bf16 where the device multiplies it fast, else in float32, and in
       float8 with a scale a row and with one a factor; the mean loss over the last twentieth of the steps, float8 /
       without. A model of a million parameters reads Python's standard library. Where the device has no float8 products
       they are emulated: the same rounding before products in float32, which says nothing of speed.
speed  on a GPU with float8 products only: tokens a second of bare steps of model=llama_350m, compiled, bf16-mixed, in
       turns, on random tokens. No GPU has run this yet.

The picture shows the curves, means over as many steps, and how far float8's lie above the first.
"""

from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.bare import NEVER, Step, compose_run, make_step
from benchmarks.interleave import interleave
from benchmarks.report import Report, Row, make_parser
from mulligan.model.float8 import CAPABILITY
from mulligan.report.curve import read_curve

RECIPES = ("rowwise", "tensorwise")
RATIO_AIM = 1.01
PARTS = 20  # of a run, for means
SMALL = (
    *("model.width=128", "model.num_layers=4", "model.feedforward_width=384", "tokenizer.vocab_size=1024"),
    *("sequence_length=64", "global_batch_samples=8", "log_every_n_steps=1", "stability=none", "compile=false"),
    *(f"validate_every_n_steps={NEVER}", f"checkpoint.every_n_steps={NEVER}", "evaluate_every_n_steps=null"),
)
LARGE = ("model=llama_350m", "sequence_length=1024", "global_batch_samples=8", "precision=bf16-mixed")
LINES: dict[str, dict[str, Any]] = {
    "rowwise": {"color": "#1f5f99"}, "tensorwise": {"color": "#c8433f", "linestyle": "--"}
}  # fmt: skip


def train(folder: str, name: str, *overrides: str) -> tuple[list[float], str]:
    """Mean losses of the parts of a run, in nats, and the precision it was trained in."""
    with redirect_stdout(StringIO()):
        run = compose_run(folder, *SMALL, f"folder={folder}/{name}", *overrides)
        run.train(lambda *_: None, lambda _: None)
    losses, length = read_curve(run.folder).losses, run.num_steps // PARTS
    return [fmean(losses[start : start + length]) for start in range(0, length * PARTS, length)], run.precision


def gaps(curve: list[float], other: list[float]) -> list[float]:
    return [mine - its for mine, its in zip(curve, other, strict=True)]


def measure_loss(report: Report, steps: int, trainer: str, has_float8: bool) -> dict[str, list[float]]:
    how = "" if has_float8 else ", emulated"
    common = (f"max_steps={steps}", f"trainer={trainer}")
    with TemporaryDirectory() as folder:
        without, precision = train(folder, "without", *common)
        curves = {precision: without}
        for recipe in RECIPES:
            chosen = (f"float8={recipe}", f"float8.emulate={str(not has_float8).lower()}")
            curves[recipe], _ = train(folder, recipe, *common, *chosen)
    rows: list[Row] = []
    for name, curve in curves.items():
        ratio = curve[-1] / without[-1]
        row: Row = {"products": name, "last loss": curve[-1], "ratio": ratio}
        rows.append(row | {"most apart, nats": max(map(abs, gaps(curve, without)))})
        if name in RECIPES:
            what, ours = f"last loss, float8 {name}{how}", curve[-1]
            report.judge(
                what, ours=ours, unit="nats", peer=precision, theirs=without[-1], ratio=ratio, at_most=RATIO_AIM
            )
    report.add(f"loss, {steps} steps on {trainer}, float8{how}", rows)
    return curves


def draw(curves: dict[str, list[float]], picture: Path, steps: int, *, emulated: bool) -> None:
    (first, without), *others = curves.items()
    places = [steps // PARTS * (number + 0.5) for number in range(PARTS)]
    figure = Figure(figsize=(9.0, 5.0), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    above.plot(places, without, color="#444444", linewidth=4.0, alpha=0.4, label=first)
    for name, curve in others:
        above.plot(places, curve, label=f"float8 {name}", **LINES[name])
        below.plot(places, gaps(curve, without), **LINES[name])
    above.set_title(f"the same run with and without float8 products{', emulated' if emulated else ''}", fontsize=10)
    above.set_ylabel("loss, nats")
    above.legend()
    below.axhline(0.0, color="#444444", linewidth=0.8)
    below.set_ylabel(f"above {first}'s")
    below.set_xlabel(f"step; means over {steps // PARTS} steps")
    for axes in (above, below):
        axes.grid(alpha=0.25)
    figure.savefig(picture, dpi=110)


def waited(step: Step) -> None:
    step()
    torch.cuda.synchronize()


def measure_speed(report: Report, rounds: int) -> None:
    with TemporaryDirectory() as folder:
        runs = {
            name: compose_run(folder, *LARGE, "trainer=single_gpu", f"folder={folder}/{name}", *chosen)
            for name, chosen in {"bf16": (), **{recipe: (f"float8={recipe}",) for recipe in RECIPES}}.items()
        }
    run = runs["bf16"]
    steps = {
        name: partial(waited, make_step(one, default_precision=True, compiled=True, device="cuda"))
        for name, one in runs.items()
    }
    timings = interleave(steps, rounds=rounds, warmup_rounds=5)
    rows: list[Row] = [
        {
            "products": name,
            "tokens/s": run.tokens_per_step / timing.median,
            "times": 1 / timing.ratio_to(timings["bf16"]),
        }
        for name, timing in timings.items()
    ]
    report.add(f"speed, {run.model.num_parameters:,} parameters, {rounds} rounds of a step", rows)


def main() -> None:
    parser = make_parser(__doc__, rounds=9)
    parser.add_argument("--steps", type=int, default=300, help="of each run (default 300)")
    parser.add_argument("--picture", type=Path, help="also draw the curves into this file")
    options = parser.parse_args()
    report = Report()
    on_gpu = torch.cuda.is_available()
    has_float8 = on_gpu and torch.cuda.get_device_capability() >= CAPABILITY
    curves = measure_loss(report, options.steps, "single_gpu" if on_gpu else "cpu", has_float8)
    if options.picture:
        draw(curves, options.picture, options.steps, emulated=not has_float8)
    if has_float8:
        measure_speed(report, options.rounds)
    report.write(options.json)


if __name__ == "__main__":
    main()
