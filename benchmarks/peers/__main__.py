"""Tokens a second of whole training programs on the same work, ours among them.

    python -m benchmarks.peers [--full] [--shapes 10M-256-8k ...] [--only NAMES] [--rounds N] [--json PATH]

Every program trains in a process of its own, from its own package, and waits while another's block of steps is timed.

bare, bare_compiled      a loop around a plainly written decoder, full logits, fused AdamW, eager and compiled
bare_compiled_launched   the same with launch/environment.sh, which ours is started with: glibc's and OpenMP's settings
lightning                Lightning's Trainer around the same decoder, logging the loss every 10 steps
transformers             transformers' model under its own Trainer
litgpt_model             litgpt's model in the bare loop
litgpt_pretrain          litgpt's own pre-training, which always compiles
mulligan(_compiled)      a whole run with guard, CSV logger and loader thread, as launch/local.sh starts it; it alone
                         has a z-loss. What `compile=auto` chooses is judged
mulligan_not_launched    the same, eager, without launch/environment.sh

The same for all: shape, tokens (Zipf's law, one file), precision (bf16 autocast where the machine multiplies it, else
float32), AdamW and its numbers, clipping at 1.0, micro-batch, threads, OMP_WAIT_POLICY=PASSIVE. Numbers of parameters
must be equal, and first losses near each other and the logarithm of the vocabulary. Judged is ours against the fastest
peer, within rounds. A turn is one step, which rarely is one that logs or takes a snapshot: benchmarks.overhead and
guard measure those. A peer whose environment cannot be made or whose program fails is left out. Peak memory
is all that was resident, libraries with it. A GPU has shapes of its own, MFU and its own memory, and runs the programs
one after another. Quick leaves shapes and programs out.
"""

import math
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.interleave import Timing, interleave
from benchmarks.peers.mulligan_run import make_run
from benchmarks.peers.programs import PROGRAMS, ProgramProcess
from benchmarks.peers.shapes import CPU_SHAPES, GPU_SHAPES, SHAPES, Work
from benchmarks.peers.windows import write_tokens
from benchmarks.report import Report, Row, make_parser
from mulligan.training.hardware import cpu_multiplies
from mulligan.training.run import TrainingRun

QUICK_SHAPES = ("10M-256-8k", "10M-256-32k")
QUICK_PEERS = ("bare_compiled", "bare_compiled_launched", "transformers")
AIM, LARGE_VOCABULARY_AIM = 1.05, 1.2  # times the fastest peer
LARGE_VOCABULARY = 32_000
MFU_AIMS = {"gpt2_124m": 0.5, "llama_1b": 0.6}
PEAK_FLOPS = 989e12  # dense bf16 of an H100 or H200
FIRST_LOSS_TOLERANCE = 0.04  # initial logits differ by a few tenths between the programs
BLOCK_STEPS = {"cpu": 1, "cuda": 10}

Programs = dict[str, ProgramProcess]


def measure(report: Report, shape_name: str, names: list[str] | None, rounds: int) -> None:
    """``names``, or without them the quick peers and ours as it chooses to run."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if device == "cuda" else cpu_multiplies("bf16")
    shape = SHAPES[shape_name]
    programs: Programs = {}
    timings: dict[str, Timing] = {}
    with TemporaryDirectory() as folder:
        path = Path(folder, "tokens.npy")
        write_tokens(path, shape.vocab_size)
        work = Work(shape_name, str(path), folder, device, bf16, BLOCK_STEPS[device], compile=False)
        run = make_run(work, compile="auto")
        names = names or [*QUICK_PEERS, chosen_of(run)]
        # Nobody else uses a GPU, which cannot hold several programs at once.
        for group in [names] if device == "cpu" else [[name] for name in names]:
            together, timed = measure_together(work, group, run, rounds)
            programs |= together
            timings |= timed
    title = f"{shape_name}: {run.model.num_parameters:,} parameters, {shape.micro_batch} samples of {shape.length}"
    title += f", {'bf16' if bf16 else 'float32'} on {device}, {rounds} rounds of {work.block_steps} step(s)"
    if timings:
        report.add(title, [row_of(name, programs[name], timings, work) for name in timings])
        judge(report, shape_name, run, programs, timings, work)


def chosen_of(run: TrainingRun) -> str:
    return "mulligan_compiled" if run.compile else "mulligan"


def measure_together(work: Work, names: list[str], run: TrainingRun, rounds: int) -> tuple[Programs, dict[str, Timing]]:
    """Those programs that run, ended, and their timings; says why others do not."""
    programs = started(work, names)
    try:
        advance(programs, ProgramProcess.start_block)  # all compile at once
        advance(programs, ProgramProcess.finish_block)
        check_same_work(programs, run)
        pids = [program.process.pid for program in programs.values()]
        timings = interleave(programs, rounds=rounds, processes=pids)
    finally:
        for program in programs.values():
            program.end()
    return programs, timings


def started(work: Work, names: list[str]) -> Programs:
    programs: Programs = {}
    for name in names:
        program = PROGRAMS[name]
        own = work._replace(folder=str(Path(work.folder, name)), compile=program.compile)
        try:
            programs[name] = ProgramProcess(program, own)
        except RuntimeError as error:
            leave_out(name, error)
    advance(programs, ProgramProcess.finish_block)
    return programs


def advance(programs: Programs, part: Callable[[ProgramProcess], None]) -> None:
    """Take out the programs that fail at it."""
    for name, program in list(programs.items()):
        try:
            part(program)
        except RuntimeError as error:
            programs.pop(name).end()
            leave_out(name, error)


def leave_out(name: str, error: RuntimeError) -> None:
    """Go on without a peer; without ours nothing would be measured."""
    if PROGRAMS[name].is_ours:
        raise error
    print(f"{name} is left out: {error}", flush=True)


def check_same_work(programs: Programs, run: TrainingRun) -> None:
    """As many parameters, and the loss of a model that knows nothing yet."""
    expected = math.log(run.model.vocab_size)
    for name, program in programs.items():
        count, loss = program.report["num_parameters"], program.report["first_loss"]
        assert count == run.model.num_parameters, f"{name} has {count:,} parameters, not {run.model.num_parameters:,}"
        assert abs(loss / expected - 1.0) < FIRST_LOSS_TOLERANCE, f"{name} begins at {loss:.3f}, not {expected:.3f}"


def row_of(name: str, program: ProgramProcess, timings: dict[str, Timing], work: Work) -> Row:
    timing, first = timings[name], next(iter(timings.values()))
    row: Row = {"program": name, "tokens/s": tokens_per_second(timing, work)}
    row |= {"times the first": 1.0 / timing.ratio_to(first), "by cpu s": 1.0 / timing.cpu_ratio_to(first)}
    row |= {"ms a step": timing.median / work.block_steps * 1e3, "peak MB": program.report["peak_bytes"] / 1e6}
    return row | {"first loss": program.report["first_loss"], "last loss": program.report["loss"]}


def tokens_per_second(timing: Timing, work: Work) -> float:
    return work.of_shape.tokens_per_step * work.block_steps / timing.median


def judge(
    report: Report, shape_name: str, run: TrainingRun, programs: Programs, timings: dict[str, Timing], work: Work
) -> None:
    """Ours as the program itself chooses against the fastest peer, where both were measured."""
    chosen = chosen_of(run)
    if chosen not in timings:
        return
    ours = timings[chosen]
    for launched, how in ((False, ""), (True, ", launched alike")):
        peers = [name for name in timings if not PROGRAMS[name].is_ours and PROGRAMS[name].launched == launched]
        if not peers:
            continue
        fastest = min(peers, key=lambda name: timings[name].ratio_to(ours))
        report.judge(
            f"training {shape_name}, {chosen.replace('_', ' ')}{how}",
            ours=tokens_per_second(ours, work),
            unit="tokens/s",
            peer=f"{fastest}, the fastest",
            theirs=tokens_per_second(timings[fastest], work),
            ratio=timings[fastest].ratio_to(ours),
            at_least=LARGE_VOCABULARY_AIM if run.model.vocab_size >= LARGE_VOCABULARY else AIM,
        )
    peers = [name for name in timings if not PROGRAMS[name].is_ours]
    if work.device == "cpu" or not peers:
        return
    flops = tokens_per_second(ours, work) * run.model.flops_per_token(run.sequence_length)
    report.judge(
        f"MFU of {shape_name}", ours=flops / PEAK_FLOPS, unit="of 989 TFLOP/s", at_least=MFU_AIMS.get(shape_name)
    )
    memory = {name: program.report["peak_bytes"] / work.of_shape.tokens_per_step for name, program in programs.items()}
    leanest = min(peers, key=memory.__getitem__)
    report.judge(
        f"peak memory of {shape_name}",
        ours=memory[chosen],
        unit="bytes a token",
        peer=f"{leanest}, the leanest",
        theirs=memory[leanest],
        ratio=memory[chosen] / memory[leanest],
        at_most=1.0,
    )


def main() -> None:
    on_gpu = torch.cuda.is_available()
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument("--full", action="store_true", help="all shapes and programs")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, help="these shapes")
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, help="these programs")
    options = parser.parse_args()
    every = GPU_SHAPES if on_gpu else CPU_SHAPES
    shapes = options.shapes or list(every if options.full or on_gpu else QUICK_SHAPES)
    names = options.only or (list(PROGRAMS) if options.full else None)
    report = Report()
    for shape_name in shapes:
        measure(report, shape_name, names, options.rounds)
    report.write(options.json)


if __name__ == "__main__":
    main()
