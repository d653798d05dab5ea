"""Mistakes on purpose: each ends in one line that names key and value, exit code 2 and no traceback."""

import logging
import time
from pathlib import Path

import pytest
from safetensors.torch import save_file

from mulligan.cli.record import write_record
from mulligan.files import write_json
from mulligan.stability.ledger import Ledger
from tests.conftest import Cli
from tests.model.test_folder import save

MISTAKES = {
    # command line: what the line must name
    "trian": "'trian' is not a verb; it takes one of plan, prepare, train",
    "report runs/x": "runs/x is not an override; keys are set as key=value",
    "train max_tokens=10.5 max_steps=null": "max_tokens=10.5 must be a whole number",
    "train --lr=1e-3": "--lr=1e-3 is not an option; keys are set as key=value",
    "train optimizer.lrr=1": "optimizer.lrr: there is no such key; did you mean optimizer.lr?",
    "train lr=1": "lr: there is no such key; did you mean optimizer.lr?",
    "train sede=1": "sede: there is no such key; did you mean seed?",
    "train modle=tiny": "modle: there is no such key; did you mean model?",
    "train model=tinyy": "llama_1b, llama_350m, llama_8b, mini, tiny; did you mean tiny?",
    "train model=3": "model=3 is not one of gpt2_124m",
    "train model=a/b": "model=a/b is not one of gpt2_124m",
    "train -m model=tiny,3": "model=3 is not one of gpt2_124m",
    "train =3": "=3: there is no key before the equals sign",
    "train logger=[csv,3]": "logger=3 is not one of csv",
    "train float8=null": "float8=null is not one of none, rowwise",
    "train experiment=null": "experiment=null is not one of heal_demo, smoke; left out it has its default",
    "train hydra/launcher=3": "hydra/launcher=3 is not one of its choices",
    "train trainer.max_steps=5": "trainer.max_steps: there is no such key; did you mean max_steps?",
    "train trainer.lr=1": "trainer.lr: there is no such key; did you mean optimizer.lr?",
    "train trainer.devcies=2": "trainer.devcies: there is no such key; did you mean trainer.devices?",
    "train stability.window=9": "stability.window: there is no such key; did you mean stability.detector.window?",
    "train stability.policy={depth:9}": "stability.policy.depth: there is no such key",
    "train run=healed": "run: there is no such key (`mulligan train --help` shows them)",
    "train ~optimizer.lrr": "optimizer.lrr: there is no such key; did you mean optimizer.lr?",
    "train data.sources.files.paths=[a]": "paths: the chosen files do not have this key; choose data=files",
    "train +trainer.profiler=simple": "trainer.profiler=simple is the run's to set; trainer takes accelerator, devices",
    "train trainer._partial_=1": "trainer._partial_=1: expected bool",
    "train trainer._partial_=false": "lightning.pytorch.Trainer: it makes no Callable[..., Trainer]",
    "train +model._partial_=true": "model._target_=mulligan.model.config.ModelConfig and _partial_: it makes no Model",
    "train data.weights={1:2.0}": "data.weights={1: 2.0}: expected dict[str, float] or null",
    "train +model._recursive_=3": "model._recursive_=3: expected bool",
    "train +model._x_=3": "model._x_=3: there is no such key",
    "train model._target_=3": "model._target_=3 names no class or function: it must be text",
    "train optimizer._target_=pathlib.Path": "it makes no OptimizerRecipe, which has clip_norm and make(model)",
    "train schedule._target_=pathlib.Path": "which has warmup_steps(num_steps) and factor(step, num_steps)",
    "train +suite.mine._target_=pathlib.Path": "pathlib.Path: it makes no Suite, which has __call__(subject)",
    "train +data.sources.mine._target_=pathlib.Path": "it makes no Source, which has parts() and read(part)",
    "train +callbacks.mine._target_=pathlib.Path": "callbacks.mine._target_=pathlib.Path: it makes no Callback",
    "train +callbacks.mine._target_=os.getcwd": "which is no Lightning Callback",
    "train folder=3": "folder=3: expected str; quoted it is text: \"folder='3'\"",
    "train tokenizer.model_file=nan": "tokenizer.model_file=nan: expected str or null; quoted it is text",
    "train folder=": "folder='' must name the run's own folder",
    "train data.sources=3": "data.sources=3: expected dict[str, Source]",
    "train data.sources.stdlib=3": "data.sources.stdlib=3: expected Source",
    "train +optimizer.rate=1": "optimizer.rate=1: there is no such key",
    "train optimizer.lr=[1": "'optimizer.lr=[1' is not KEY=VALUE",
    "export model=3 run=healed to=out": "model: there is no such key (`mulligan export --help` shows them)",
    "prepare prepare=3": "prepare=3: expected its keys, prepare.part and prepare.parts",
    "train optimizer.lr=abc": "optimizer.lr='abc': expected float",
    "train optimizer.lr=-1": "optimizer.lr=-1 must be above 0",
    "train optimizer.betas=[0.9]": "optimizer.betas=[0.9] must be two numbers",
    "train optimizer.clip_norm=0": "optimizer.clip_norm=0 must be above 0, or null",
    "train model.num_heads=5": "model.num_heads=5 must divide model.width=192",
    "train model.norm=batch": "model.norm='batch': expected rms, layer",
    "train model.num_layers=2.5": "model.num_layers=2.5: expected int",
    "train sequence_length=0": "model.max_length=0 must be at least 1",
    "train model.max_length=64": "sequence_length=256 must be in [1, model.max_length=64]",
    "train model.vocab_size=300": "model.vocab_size=300 is smaller than tokenizer.vocab_size=4096",
    "train global_batch_samples=null": "give one of global_batch_samples=None and global_batch_tokens=None",
    "train global_batch_samples=null global_batch_tokens=1000": "global_batch_tokens=1000 must be a multiple",
    "train micro_batch=3": "micro_batch=3 must divide the 8 samples of a rank: the nearest that does is 2",
    "train trainer=cpu_ddp trainer.devices=3": "nearest that can is 6 or 9, and 8 can over 2 or 4",
    "train max_tokens=1000000": "give exactly one of max_steps, max_tokens, max_tokens_per_parameter",
    "train max_steps=0": "max_steps=0 must give at least one step",
    "train precision=fp8": "precision='fp8': expected",
    "train precision=16-true": "precision='16-true': expected auto, 32-true, 16-mixed",
    "train float8=rowwise": "float8=rowwise needs a GPU of compute capability 8.9 or more, and cpu has no",
    "train float8=fp8": "float8=fp8 is not one of none, rowwise, rowwise_with_gw_hp, tensorwise",
    "train float8=rowwise float8.recipe=coarse": "float8.recipe='coarse': expected rowwise, rowwise_with_gw_hp, tensor",
    "train float8=rowwise float8.emulate=true precision=16-mixed": (
        "float8=rowwise goes with precision=bf16-mixed or bf16-true or 32-true, not 16-mixed"
    ),
    "train float8=rowwise float8.emulate=true model.feedforward_width=100": "16: model.feedforward_width is 100",
    "train float8=tensorwise trainer=cpu_fsdp trainer.strategy.tensor_parallel_size=2": (
        "trainer.strategy.tensor_parallel_size=2 splits the layers that float8=tensorwise replaces: set it to 1"
    ),
    "train compile=maybe": "compile='maybe': expected bool or auto",
    "train trainer=cpu_ddp trainer.strategy.timeout_seconds=0.0": "trainer.strategy.timeout_seconds=0.0 must be",
    "train trainer=cpu_fsdp trainer.strategy.timeout_seconds=-1.0": "trainer.strategy.timeout_seconds=-1.0 must be",
    "train trainer=cpu_ddp trainer.strategy.timeout_seconds=1e300": "timeout_seconds=1e+300 must be from 1 to 31536000",
    "train trainer=cpu_ddp trainer.strategy.timeout_seconds=1e-9": "timeout_seconds=1e-09 must be from 1 to",
    "train trainer=cpu_ddp trainer.strategy.timeout_secs=9": "trainer.strategy.timeout_secs",
    "train trainer=cpu_ddp +trainer.strategy.tensor_parallel_size=2": "tensor_parallel_size=2: there is no such key",
    "train trainer=cpu_ddp trainer.strategy.broadcast_buffers=maybe": "broadcast_buffers='maybe': expected bool",
    "train trainer=cpu_fsdp trainer.strategy.tensor_parallel_size=0": "tensor_parallel_size=0 must be at least 1",
    "train trainer=cpu_fsdp trainer.strategy.tensor_parallel_size=3": (
        "trainer.strategy.tensor_parallel_size=3 must divide trainer.devices x trainer.num_nodes=2: the nearest"
    ),
    "train trainer=cpu_fsdp trainer.devices=6 trainer.strategy.tensor_parallel_size=2": (
        "split over 6 ranks in groups of 2: the nearest that can is 6 or 9, and 8 can over 4 or 8"
    ),
    "train trainer=cpu_fsdp trainer.devices=3 trainer.strategy.tensor_parallel_size=3": (
        "trainer.strategy.tensor_parallel_size=3 must divide model.num_heads=2: the nearest that divides all it has to "
        "is 1"
    ),
    "train trainer=single_gpu": "trainer.accelerator=gpu, trainer.devices=1, trainer.num_nodes=1: No supported gpu",
    "train trainer=ddp": "found; trainer=cpu, cpu_ddp and cpu_fsdp need no GPU",
    "train trainer=cpu_dpp": "cpu_fsdp, ddp, fsdp, multi_node, single_gpu; did you mean cpu_ddp?",
    "train trainer.devices=0": "trainer.devices=0",
    "train trainer.devices=-1": "trainer.devices=-1",
    "train trainer=cpu_ddp trainer.devices=two": "trainer.devices=two",
    "train trainer.num_nodes=0": "trainer.num_nodes=0",
    "train trainer.devices=2": (
        "trainer.strategy=auto is for one device, and trainer.devices=2 with trainer.num_nodes=1 are 2: choose"
    ),
    "train trainer=multi_node": "trainer.num_nodes=None: expected int",
    "train trainer=cpu_ddp trainer.num_nodes=2": (
        "trainer.num_nodes=2 needs a launcher on every machine: launch/torchrun.sh, srun, or"
    ),
    "train activation_checkpointing=some": "activation_checkpointing='some': expected bool",
    "train experiment=smok": "experiment=smok is not one of heal_demo, smoke; did you mean smoke?",
    "train name=x -m hydra/launcher=submitit seed=1,2": "hydra/launcher=submitit is not one of basic",
    "train trainer.devices=1 +trainer.max_steps=5": "trainer.max_steps=5 is the run's to set",
    "train +trainer.limit_train_batches=3": "trainer.limit_train_batches=3 is the run's to set; trainer takes",
    "train name=../out": "name='../out' must name a folder below runs/",
    "train name=": "name='' must name a folder below runs/",
    "train objective.z_loss=nan": "objective.z_loss=nan must not be negative",
    "train optimizer.lr=nan": "optimizer.lr=nan must be above 0",
    "train max_steps=null max_tokens_per_parameter=nan": "max_tokens_per_parameter=nan must be a number above 0",
    "train stability.detector.width=0.0": "stability.detector.width=0.0 must be a number above 0",
    "train stability.policy.depth_steps=500": "stability.policy.depth_steps=500 is further back than",
    "train stability.way=refit checkpoint.every_n_steps=9": "further back than (checkpoint.keep_last - 1) x every",
    "train stability.snapshots.keep=0": "stability.snapshots.keep=0 leaves no state for stability.way=in_place",
    "train stability.snapshots.max_gigabytes=0.05": "stability.snapshots.keep=4 states of 0.03 GB are more than",
    "train evaluate_bytes=0": "evaluate_bytes=0 must be at least 1",
    "train optimizer.eps=-1.0": "optimizer.eps=-1.0 must be above 0",
    "train model.init_std=-1.0": "model.init_std=-1.0 must be a number above 0",
    "train tokenizer.seed=-1": "tokenizer.seed=-1 must not be negative",
    "train data.sources.files.paths=[a.txt]": "data.sources.files.paths: the chosen files do not have this key",
    "train data.weights={stdlib: -1.0}": "data.weights.stdlib=-1.0 must be above 0",
    "train +data.sources.more={part_bytes: 5}": "data.sources.more needs a _target_",
    "generate run=nowhere sampler.temperature=nan": "temperature=nan",
    "train schedule.warmup=2.0": "schedule.warmup=2.0 is a share",
    "train schedule=wsd schedule.warmup=0.9": "schedule.warmup=0.9 and schedule.decay=0.2 overlap",
    "train objective.label_smoothing=1.0": "objective.label_smoothing=1.0 must be in [0, 1)",
    "train checkpoint.keep_last=1": "leaves a run that was stopped nothing to go back to with stability.way=in_place",
    "train stability.policy.widen=1e300": "widen=1e+300 times as many up to halt_at_level=4, are more steps than a run",
    "train checkpoint.keep_last=0": "checkpoint.keep_last=0 must be at least 1",
    "train checkpoint.milestone_every_n_steps=7": "checkpoint.milestone_every_n_steps=7 must be a multiple",
    "train log_every_n_steps=0": "log_every_n_steps=0 must be at least 1",
    "train data=files": "data.sources.files.paths is not set",
    "train data=files data.sources.files.paths=[none/*.txt]": "'none/*.txt' matches no file",
    "train data=tables data.sources.tables.paths=[table.csv]": "table.csv is neither .jsonl",
    "train data.validation_fraction=1.5": "data.validation_fraction=1.5 must be between 0 and 1",
    "train data.weights={code: 1.0}": "data.weights.code=1.0 names no source; data.sources has stdlib",
    "train data.weights={}": "data.weights={} gives stdlib no share",
    "train data.sources.stdlib.part_bytes=0": "part_bytes=0 of a source must be at least 1",
    "train stability=none experiment=heal_demo": (
        "stability: the chosen file has no _target_ that takes stability.policy, stability.snapshots; choose another"
    ),
    "train optimizer._target_=no.such": "names no class or function: No module named 'no'; is its folder in PYTHONPATH",
    "train optimizer._target_=json": "optimizer._target_=json names no class or function: <module 'json'",
    "train tokenizer=file tokenizer.model_file=none.model": "tokenizer.model_file='none.model' is not a file",
    "train initial_weights=none": "none/model.json is missing: none is not the folder of a model",
    "train initial_weights=torn": "torn/model.safetensors is not a whole safetensors file",
    "train initial_weights=kept": "initial_weights=kept holds a model of model.vocab_size=50: model.vocab_size=4096",
    "train model=initial": "model=initial takes its shape from initial_weights, which is not set: give both",
    "train model=initial initial_weights=calm": "calm/model.json is missing: calm is not the folder of a model",
    "train model=initial initial_weights=kept": "sequence_length=256 must be in [1, model.max_length=16]",
    "train tokenizer.character_coverage=0.5": "tokenizer.character_coverage=0.5 must be in [0.98, 1], or null",
    "train name=.": "name='.' must name a folder below runs/",
    "train tokenizer.vocab_size=10000000000": "vocab_size=10000000000 must be at least 260, for 256 bytes",
    "train tokenizer.vocab_size=100": "tokenizer.vocab_size=100 must be at least 260",
    "prepare data.workers=0": "data.workers=0 must be at least 1",
    "prepare tokenizer=file tokenizer.model_file=table.csv": "table.csv is not a SentencePiece model",
    "prepare tokenizer=file tokenizer.model_file=bare.json": "bare.json is not a tokenizer.json: ",
    "prepare prepare.part=3": "prepare.part=3 needs prepare.parts, the number of calls that share the work",
    "prepare prepare.parts=64": "prepare.parts=64 needs prepare.part, counted from 0; leave out both to finish",
    "prepare prepare.part=64 prepare.parts=64": "prepare.part=64 must be in [0, 63]: the prepare.parts=64 are counted",
    "prepare prepare.part=-1 prepare.parts=64": "prepare.part=-1 must be in [0, 63]",
    "prepare prepare.part=0 prepare.parts=0": "prepare.parts=0 must be at least 1",
    "prepare prepare.part=1.5 prepare.parts=64": "prepare.part=1.5: expected int or null",
    "prepare prepare.part= prepare.parts=64": "prepare.part='': expected int or null",
    "prepare prepare.prat=1": "prepare.prat: there is no such key; did you mean prepare.part?",
    "train prepare.part=1": "prepare.part: there is no such key (`mulligan train --help` shows them)",
    "evaluate": "run is not set: give it as run=VALUE",
    "evaluate run=nowhere": "run=nowhere: no run is there",
    "evaluate run=nowhere suite=[lambda]": "held_out, lambada, lm_eval, text; did you mean lambada?",
    "evaluate run=nowhere suite=[text]": "suite.text.paths is not set: give it as suite.text.paths=VALUE",
    "evaluate run=nowhere suite=[text] suite.text.paths=[none.txt]": "suite.text.paths='none.txt' matches no file",
    "evaluate run=nowhere suite=[lambada] suite.lambada.path=none.jsonl": "suite.lambada.path=none.jsonl is not a file",
    "evaluate run=nowhere suite=[lambada] suite.lambada.path=table.csv": "path=table.csv must end in .txt, or in",
    "evaluate run=nowhere suite=[lambada] suite.lambada.limit=0": "limit=0 must be at least 1, or null",
    "evaluate run=nowhere suite=[exposure_bias] suite.exposure_bias.num_prefixes=1": "num_prefixes=1 must be at least",
    "evaluate run=nowhere suite=[held_out] suite.held_out.strid=3": "suite.held_out.strid: there is no such key",
    "evaluate run=nowhere suite=[held_out] suite.held_out.max_bytes=0": "suite.held_out.max_bytes=0 must be at least 1",
    "evaluate run=nowhere output=healed": "output=healed is a folder; name a file in it",
    "evaluate run=nowhere output=none/x.json": "output=none/x.json: there is no folder none; make it first",
    "evaluate sutie=held_out run=nowhere": "sutie: there is no such key; did you mean suite?",
    "generate run=nowhere output=none/x.jsonl": "output=none/x.jsonl: there is no folder none; make it first",
    "report run=healed to=healed": "to=healed is a folder; name a file in it",
    "train evaluate_every_n_steps=0": "evaluate_every_n_steps=0 must be at least 1, or null for never",
    "train sample_tokens=0": "sample_tokens=0 must be at least 1; sample_prompts=[] leaves samples out",
    "train sample_prompts=def": "sample_prompts='def': expected list[str]",
    "train suite=[lambada] suite.lambada.path=none.txt": "path=none.txt is not a file",
    "generate run=nowhere": "run=nowhere: no run is there",
    "generate run=nowhere sampler.min_p=2.0": "min_p=2.0 must be in (0, 1], or null for all tokens",
    "generate run=nowhere prompt=x prompts=[y]": "prompt and prompts both name prompts: give one of them",
    "generate run=nowhere prompts=[]": "prompts=[] names none: give a list such as [def,class]",
    "generate run=nowhere prompts_file=none.txt": "prompts_file=none.txt is not a file",
    "generate run=nowhere prompts_file=old.safetensors": "prompts_file=old.safetensors holds no prompt",
    "generate run=nowhere stop=x": "stop='x': expected list[str]",
    "generate run=nowhere stop=['']": "stop=[''] holds an empty string, with which every text begins",
    "generate run=nowhere output=texts.json": "output=texts.json must name a .jsonl file",
    "generate run=nowhere batch_size=0": "batch_size=0 must be at least 1",
    "generate run=nowhere explain=maybe": "explain='maybe': expected bool",
    "generate run=nowhere sampler.temperature=-1.0": "sampler.temperature=-1.0 must be a number that is not negative",
    "generate run=llama": "llama holds a model as transformers or llama.cpp saves it: give the folder that",
    "evaluate run=old.gguf suite=[held_out]": "the folder that `mulligan import from=old.gguf to=FOLDER` makes",
    "generate run=none.gguf": "run=none.gguf: no run is there",
    "train initial_weights=llama": "llama holds a model as transformers or llama.cpp saves it: give the folder that",
    "generate run=torn": "torn/model.safetensors is not a whole safetensors file",
    "generate run=kept": "kept has no tokenizer: neither tokenizer.model nor tokenizer.json is there",
    "replay rnu=1": "rnu: there is no such key; did you mean run?",
    "replay run=healed optimizer.lr=1": "optimizer.lr: there is no such key (`mulligan replay",
    "replay run=nowhere": "run=nowhere: no run is there",
    "export run=healed": "to is not set: give it as to=VALUE",
    "export run=nowhere to=model.safetensors": "run=nowhere: no run is there",
    "export run=healed to=model.bin": "to=model.bin must name a .safetensors file, or a folder with format=hf",
    "export run=healed to=out format=onnx": "format='onnx': expected weights, hf",
    "export run=healed to=none/out format=hf": "to=none/out: there is no folder none; make it first",
    "export run=healed to=healed format=hf": "to=healed: healed is there already; choose another name",
    "export run=healed to=out format=hf": "run=healed: it has no whole checkpoint yet",
    "import from=llama": "to is not set: give it as to=VALUE",
    "import to=out": "from is not set: give it as from=VALUE",
    "import form=llama to=out": "form: there is no such key; did you mean from?",
    "import from=none to=out": "from=none is not there: give a model's folder",
    "import from=5 to=out": "from=5 is not there",
    "import from=table.csv to=out": "from=table.csv is of no kind that is read: give a folder that transformers has",
    "import from=llama to=healed": "to=healed is there already; choose another name",
    "import from=llama to=none/out": "to=none/out: there is no folder none; make it first",
    "import from=healed to=out": "from=healed has no config.json: give the folder of a model",
    "import from=bert to=out": "bert/config.json: architectures=['BertModel'] must be one of LlamaForCausalLM, Qwen3",
    "import from=llama to=out": "llama has neither model.safetensors nor model.safetensors.index.json",
    "import from=pickled to=out": "pickled/pytorch_model.bin can run code when it is loaded: only safetensors are read",
    "import from=empty to=out": "empty: its weights lack model.embed_tokens.weight, which a LlamaForCausalLM of this",
    "export run=healed to=none/model.safetensors": "to=none/model.safetensors: there is no folder none; make it first",
    "export run=healed to=old.safetensors": "to=old.safetensors: old.safetensors is there already; choose another name",
    "export run=healed to=foreign/model.safetensors": "foreign/tokenizer.json is there already; choose another name",
    "export run=healed to=model.safetensors": "run=healed: it has no whole checkpoint yet",
    "export run=healed to=model.safetensors step=5": (
        "step=5: healed/checkpoints has no checkpoint of it; it has those of: none"
    ),
    "export run=healed to=model.safetensors setp=5": "setp: there is no such key; did you mean step?",
    "backtest": "curve is not set: give it as curve=VALUE",
    "backtest curve=loss.csv stability.detector.windwo=9": "did you mean stability.detector.window?",
    "backtest curve=none.csv": "curve=none.csv must be a .csv or .jsonl file that is there, or a run's folder",
    "backtest curve=.": "curve=. must hold the metrics.csv of one run, and holds none",
    "backtest curve=table.csv": "table.csv:1: the file has no rows",
    "backtest curve=loss.csv loss_column=text": "loss.csv has no column text; name one by loss_column=NAME, of step",
    "backtest curve=loss.csv spikes=[[5,2]]": "spikes: [5, 2] must be a range [start, stop] of steps",
    "backtest curve=loss.csv spikes=[5,2]": "spikes=[5, 2]: expected list[list[int]] or null",
    "backtest curve=loss.csv spikes=[[50,60]]": "spikes: [50, 60] holds no recorded step; the curve has 1 to 2",
    "backtest curve=loss.csv output=.": "output=. is a folder; name a file in it",
    "backtest curve=loss.csv min_rise=0.0": "min_rise=0.0 must be a number above 0",
    "backtest curve=loss.csv stability.detector.width=0.0": "stability.detector.width=0.0 must be a number above 0",
    "backtest curve=loss.csv stability=none": "stability=None: expected Guard",
    "inspect": "run is not set: give it as run=VALUE",
    "inspect run=healed tpo=3": "tpo: there is no such key; did you mean top?",
    "inspect run=nowhere": "run=nowhere: no run is there",
    "inspect run=foreign": "foreign/config.yaml is not that of a run, it has no sequence_length: bring it back",
    "inspect run=halted intervention=0 test=counterfactual": "test=counterfactual needs a detector, and run=halted",
    "inspect run=calm intervention=0": "intervention=0: nothing was done to run=calm, its ledger has no line",
    "inspect run=healed intervention=1": "intervention=1 must be in [0, 0], or null for a table of all",
    "inspect run=healed intervention=0": "run=healed: it has no whole checkpoint yet",
    "inspect run=healed output=healed": "output=healed is a folder; name a file in it",
    "inspect run=healed max_steps=0": "max_steps=0 must be at least 1",
    "runs": "folders=['runs']: runs is no folder; give one that holds runs, such as runs",
    "runs folders=[healed]": "folders=['healed']: no run is there (no config.yaml with a provenance.jsonl beside it)",
    "runs folders=[table.csv]": "folders=['table.csv']: table.csv is no folder",
    "runs folders=[]": "folders=[] must name at least one",
    "runs folder=runs": "folder: there is no such key; did you mean folders?",
    "runs folders=[halted] sort_by=loss": "sort_by='loss'",
    "report": "run is not set: give it as run=VALUE",
    "report run=nowhere": "run=nowhere: no run is there",
    "report run=healed comapre=calm": "comapre: there is no such key; did you mean compare?",
    "report run=healed compare=nowhere": "compare=nowhere: no run is there (no config.yaml)",
    "report run=healed to=page.pdf": "to=page.pdf must name a .html file",
    "report run=healed to=none/page.html": "to=none/page.html: there is no folder none; make it first",
    "report run=healed prompts=def": "prompts='def': expected list[str] or null",
    "plan hardware=h1000": "hardware='h1000' is not one of a100, a100_40gb, a100_pcie",
    "plan flops=1e20 hours=3 hardware=h100": "flops=1e+20 hours=3: give one or two of flops or hours, params, tokens",
    "plan flops=-1": "flops=-1 must be a number above 0",
    "plan flops=much": "flops='much': expected float or null",
    "plan hours=3": "hours=3 needs hardware: one of a100",
    "plan devices_per_host=0": "devices_per_host=0 must be at least 1",
    "plan network_gigabits=0": "network_gigabits=0 must be a number above 0",
    "plan mfu=40": "mfu=40 must be above 0 and at most 1",
    "plan trainer=ddp": "trainer.devices=auto must be a number: a plan asks no machine how many it has",
    "plan trainer=multi_node trainer.devices=8": "trainer.num_nodes=None: expected int",
    "plan trainer.devices=3": "global_batch_samples=8 cannot be split over 3 ranks",
    "plan +trainer.max_steps=3": "trainer.max_steps=3 is the run's to set",
    "plan trainer=fsdp trainer.devices=8 trainer.strategy.tensor_parallel_size=3": "must divide trainer.devices x",
    "plan model.max_length=64": "sequence_length=256 must be in [1, model.max_length=64]",
    "plan float8=rowwise hardware=h100 trainer=fsdp trainer.devices=8 trainer.strategy.tensor_parallel_size=2": (
        "trainer.strategy.tensor_parallel_size=2 splits the layers that float8=rowwise replaces"
    ),
    "plan float8=rowwise hardware=h100 precision=32-true": "goes with precision=bf16-mixed or bf16-true, not 32-true",
    "plan float8=rowwise trainer=cpu": "cpu has no such products",
    "plan output=.": "output=. is a folder; name a file in it",
    "plan sede=1": "sede: there is no such key; did you mean seed?",
    "plan +nonsense=1": "nonsense=1: there is no such key",
    "drill only=[plateua]": "only: there is no fault 'plateua'; choose from garbage_data, ",
    "drill faults.plateau.at_step=501": "faults.plateau.at_step=501 is beyond the run's 500 steps",
    "drill faults.plateau.rank=1": "faults.plateau.rank=1 must be below the number of ranks, 1, or null",
    "drill faults.plateau.num_steps=-1": "NoisyWeights: num_steps=-1 must be at least 1",
    "drill faults.plateau.sise=2.0": "faults.plateau.sise: there is no such key; did you mean faults.plateau.size?",
    "drill validate_every_n_steps=300": "validate_every_n_steps=300 must divide the run's 500 steps",
    "drill output=.": "output=. is a folder; name a file in it",
    "drill sede=1": "sede: there is no such key; did you mean seed?",
    "drill faults.no_nubmer.at_step=3": "faults.no_nubmer.at_step: there is no such key; did you mean faults.no_number",
    "drill stability=none experiment=heal_demo": "stability: the chosen file has no _target_ that takes",
    "drill optimizer.lrr=1": "optimizer.lrr: there is no such key; did you mean optimizer.lr?",
}

LLAMA = {
    "vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 8,
}  # fmt: skip
WITHHELD = {
    "step": 4, "judged_step": 3, "loss": 5.0, "limit": None, "gradient_norm": None, "trigger": None,
    "time": "2026-01-01",
}  # fmt: skip


@pytest.mark.parametrize("line", MISTAKES)
def test_mistake(line: str, here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("table.csv").write_text("text\n")
    Path("old.safetensors").touch()
    Path("old.gguf").touch()
    Path("loss.csv").write_text("step,loss\n1,3.0\n2,2.9\n")
    for name in ("calm", "healed", "halted"):
        record = {"sequence_length": 32, "precision": "32-true", "checkpoint": {"folder": f"{name}/checkpoints"}}
        write_record(Path(name), record | {"stability": None})
    write_record(Path("foreign"), {"seed": 1})
    Path("foreign/tokenizer.json").touch()
    for name in ("bert", "llama", "pickled", "empty"):
        architecture = "BertModel" if name == "bert" else "LlamaForCausalLM"
        write_json(Path(name, "config.json"), LLAMA | {"architectures": [architecture]})
    Path("pickled/pytorch_model.bin").touch()
    for name in ("bert", "empty"):
        save_file({}, f"{name}/model.safetensors")
    for name in ("kept", "torn"):
        Path(name).mkdir()
        save(Path(name))
    Path("torn/model.safetensors").write_bytes(b"torn")
    Path("bare.json").write_text("{}")
    Ledger(Path("halted/ledger.jsonl")).append("halt", **WITHHELD | {"onset": 3, "target": 2})
    Ledger(Path("healed/ledger.jsonl")).append("withheld", **WITHHELD)
    verb, *overrides = line.split(" ", 1)
    split = overrides[0].split(" ") if overrides and "{" not in overrides[0] else overrides
    with monkeypatch.context() as patch:
        patch.setattr(logging.getLogger(), "handlers", [])  # pytest's keep off the console what a user would see there
        done = here(verb, *split)
    assert done.returncode == 2
    assert MISTAKES[line] in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not Path("runs").exists(), "a mistake left files behind"


@pytest.mark.parametrize(("age", "waits"), [(-60.0, 5.0), (60.0, 15.0)])
def test_another_rank_says_what_rank_zero_did_not_see(
    age: float, waits: float, here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr("mulligan.cli.verb._BEGUN", time.monotonic() - age)
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    done = here("train", "optimizer.lr=-1")
    assert done.returncode == 2
    assert done.stderr == "mulligan train RANK=3: optimizer.lr=-1 must be above 0\n"
    assert waited == [waits], "no time for rank zero to say the same and end this one"


@pytest.mark.parametrize("name", ["LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"])
def test_a_launchers_variable_that_is_no_number(name: str, here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "one")
    monkeypatch.setattr(time, "sleep", lambda _: None)
    done = here("train")
    assert done.returncode == 2
    assert f": {name}='one' in the environment must be a whole number\n" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RANK", "1", "RANK=1 in the environment must be below WORLD_SIZE, which is not set"),
        ("LOCAL_RANK", "3", "LOCAL_RANK=3 in the environment must be below WORLD_SIZE, which is not set"),
        ("WORLD_SIZE", "2", "the launcher started 2 ranks, but trainer.devices x trainer.num_nodes is 1: give the"),
        ("NODE_RANK", "3", "NODE_RANK=3 in the environment must be below trainer.num_nodes=1"),
        ("MASTER_PORT", "99999", "MASTER_PORT=99999 in the environment must be below 65536"),
        ("WANDB_MODE", "foo", "WANDB_MODE='foo' in the environment is not one of online, offline"),
    ],
)
def test_a_variable_that_is_left_over_or_mistyped(
    name: str, value: str, message: str, here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    done = here("train", "logger=wandb")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()


def test_there_are_thirty() -> None:
    assert len(MISTAKES) >= 30
