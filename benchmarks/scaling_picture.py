"""Draw how far DDP, FSDP2 and tensor parallelism carry a model, as planned, not measured.

    python -m benchmarks.scaling_picture docs/scaling.png

The efficiency over the number of H100s (8 a host, 400 Gb/s each) in bf16-mixed with activations computed again, at 8
samples of 2,048 tokens a device, which alone would reach an MFU of 40%. Dotted where a rank does not fit.
"""

import argparse
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from matplotlib.figure import Figure

from mulligan.cli.compose import CONF, build, plain
from mulligan.cli.plan_numbers import USABLE_SHARE
from mulligan.model.config import ModelConfig
from mulligan.planning.accelerators import ACCELERATORS
from mulligan.planning.communication import Network
from mulligan.planning.memory import Layout
from mulligan.planning.scaling import DEVICES, PAYS, WAYS, Point, points_of
from mulligan.report.palette import GIVEN_UP, KEPT, MUTED, WITHHELD

MODELS = ("llama_1b", "llama_8b")
SAMPLES, MFU = 8, 0.4
COLORS = dict(zip(WAYS, (KEPT, GIVEN_UP, WITHHELD), strict=True))
MARKS = dict(zip(WAYS, "osD", strict=True))
H100 = ACCELERATORS["h100"]


def model_of(name: str) -> ModelConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build(plain(compose("train", overrides=[f"model={name}"]))["model"])


def draw(axes: Any, model: ModelConfig) -> None:
    layout = Layout(precision="bf16-mixed", micro_batch=SAMPLES, sequence_length=2048, activation_checkpointing=True)
    points = {
        devices: points_of(
            model,
            layout,
            Network(devices_per_host=8, link_bandwidth=H100.link_bandwidth, network_bandwidth=50e9),
            devices=devices,
            global_batch=SAMPLES * devices,
            flops=MFU * H100.peak_flops,
            usable_bytes=USABLE_SHARE * H100.memory_bytes,
        )
        for devices in DEVICES
    }
    for way, color in COLORS.items():
        found: list[tuple[int, Point]] = [(devices, one[way]) for devices, one in points.items() if one[way]]  # type: ignore[misc]  # None left out
        fits = all(point.fits for _, point in found)
        axes.plot(
            [devices for devices, _ in found], [100.0 * point.efficiency for _, point in found], color=color,
            marker=MARKS[way], markersize=4, linestyle="-" if fits else ":",
            label=way + ("" if fits else ", too large"),
        )  # fmt: skip
    axes.axhline(100.0 * PAYS, color=MUTED, linewidth=0.8, linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set_xticks(DEVICES[::3], [f"{devices:,}" for devices in DEVICES[::3]])
    axes.set_ylim(0.0, 102.0)
    axes.set_xlabel("H100s")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower left")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(MODELS), sharey=True), MODELS, strict=True):
        draw(axes, model_of(name))
        axes.set_title(f"{name}, planned", loc="left")
    figure.axes[0].set_ylabel("% of the devices' speed when each is alone")
    figure.savefig(options.picture, dpi=110)


if __name__ == "__main__":
    main()
