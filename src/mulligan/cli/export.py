"""``mulligan export run=runs/NAME to=model.safetensors``: the weights of a checkpoint, of either form, in one file.

Beside it model.json is written. ``model_with_weights(ModelConfig(**json), load_file(...), device)`` is the model again.
"""

import sys
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from mulligan.cli.compose import build, plain, run_verb
from mulligan.cli.saved_run import SavedRun
from mulligan.files import write_hashed, write_json
from mulligan.model.config import ModelConfig
from mulligan.model.weights import model_with_weights, weights_sha256
from mulligan.training.checkpoints import load_checkpoint, model_part
from mulligan.training.safetensors_file import write_safetensors


class Export:
    """The schema of conf/export.yaml."""

    def __init__(self, *, run: str, to: str, step: int | None) -> None:
        self.weights, self.shape = Path(to), Path(to).with_suffix(".json")
        if self.weights.suffix != ".safetensors":
            raise ValueError(f"to={to} must name a .safetensors file")
        if not self.weights.parent.is_dir():
            raise ValueError(f"to={to}: there is no folder {self.weights.parent}; make it first")
        for path in (self.weights, self.shape):
            if path.exists():
                raise ValueError(f"to={to}: {path} is there already; choose another name")
        self.run = SavedRun(Path(run))
        self.checkpoint = self.run.newest if step is None else self.run.at_step(step)


def main() -> int:
    return run_verb("export", export)


def export(config: DictConfig) -> None:
    export: Export = build(plain(config))
    shape: ModelConfig = build(export.run.recorded["model"])
    state = load_checkpoint(export.checkpoint.path, with_optimizer=False)["state_dict"]
    model = model_with_weights(shape, model_part(state), "cpu")
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}  # tied ones once
    write_json(export.shape, asdict(shape))
    write_hashed(export.weights, lambda file: write_safetensors(file, weights, {"step": str(export.checkpoint.step)}))
    digest = weights_sha256(model.state_dict())
    print(
        f"{export.weights} holds the {shape.num_parameters:,} parameters of {export.run.folder} at step "
        f"{export.checkpoint.step}, sha256 of the weights {digest[:16]}; {export.shape} their shape"
    )


if __name__ == "__main__":
    sys.exit(main())
