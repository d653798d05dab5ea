"""``mulligan report run=runs/NAME``: the run as one HTML page, and its pictures as PNG."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from mulligan.cli.compose import build, plain
from mulligan.cli.output import output_path
from mulligan.cli.record import different_keys
from mulligan.cli.saved_run import SavedRun
from mulligan.data.join import verify
from mulligan.data.shards import Shards
from mulligan.files import atomic_write, read_json
from mulligan.report import figures
from mulligan.report.next_token import NextToken, held_out_beginnings, next_tokens, prompt_context
from mulligan.report.page import Compared, page, rows_of_numbers
from mulligan.report.rendering import Picture, render
from mulligan.report.run_files import RunFiles
from mulligan.report.sample_order import Source, first_samples, sources_of

WIDE, FLAT, SMALL = (10.0, 3.7), (10.0, 2.8), (5.0, 2.35)  # inches
BEGINNINGS, BEGINNING_TOKENS = 4, 40  # held-out texts whose next token is shown, and the tokens before it
NAMES_AND_PLACES = ("name", "folder", "logger", "checkpoint.folder", "data.folder")


class Report:
    """The schema of conf/report.yaml."""

    def __init__(self, *, run: str, compare: str | None, to: str | None, prompts: list[str] | None) -> None:
        self.page = output_path(to, key="to") or Path(run) / "report.html"
        if self.page.suffix != ".html":
            raise ValueError(f"to={to} must name a .html file")
        self.run = SavedRun(Path(run))
        if compare is not None and not (Path(compare) / "config.yaml").is_file():
            raise ValueError(f"compare={compare}: no run is there (no config.yaml); give a folder such as runs/default")
        self.compare = None if compare is None else SavedRun(Path(compare))
        self.prompts = prompts


def work(config: DictConfig) -> None:
    report: Report = build(plain(config))
    run, other = report.run, report.compare
    files = run.files()
    other_files = None if other is None else other.files()
    pictures = [*pictures_of(files), *pictures_of_both(files, other_files)]
    sources, without_sources = sources_or_reason(run)
    explorer, without_explorer = explorer_or_reason(run, report.prompts)
    compared = None
    if other is not None and other_files is not None:
        differences = different_keys(run.recorded, other.recorded, free=NAMES_AND_PLACES)
        compared = Compared(other_files.name, rows_of_numbers(files, other_files), differences, caution_of(differences))
    html = page(
        files,
        pictures,
        config=(run.folder / "config.yaml").read_text(),
        band_note=band_note_of(files),
        sources=sources,
        without_sources=without_sources,
        explorer=explorer,
        without_explorer=without_explorer,
        compared=compared,
    ).encode()
    folder = report.page.with_name(f"{report.page.stem}_pictures")
    for picture in pictures:
        with atomic_write(folder / f"{picture.name}.png") as file:
            file.write(picture.png)
    with atomic_write(report.page) as file:
        file.write(html)
    beside = f", and {len(pictures)} pictures in {folder}" if pictures else ""
    print(f"{report.page} ({len(html) / 2**20:.2f} MiB) shows {run.folder}{beside}")
    if not explorer:
        print(f"without next tokens: {without_explorer}")


def caution_of(differences: list[tuple[str, object, object]]) -> str:
    """What of two runs cannot be compared, for what their configs say differently."""
    changed = {key for key, _, _ in differences}
    if any(key.startswith(("data.", "evaluate_bytes")) for key in changed):
        return "The runs were judged on different text: none of their held-out numbers compare."
    if any(key.startswith("tokenizer.") for key in changed):
        return "The tokenizers differ: bits per byte compare; perplexity, nats a token and both curves do not."
    return ""


def band_note_of(files: RunFiles) -> str:
    if "cross_entropy" not in files.metrics:
        return ""
    if "loss_limit" not in files.metrics:
        return "No detector had judged this run when it was logged, so there is no band."
    return "The band reaches from the detector's centre to the limit above which a loss counts as risen."


def pictures_of(run: RunFiles) -> Iterator[Picture]:
    metrics, entries, last = run.metrics, run.ledger.entries, run.num_attempts
    if "cross_entropy" in metrics:
        losses, validation = metrics["cross_entropy"], metrics.get("val_cross_entropy")
        band = (metrics["loss_centre"], metrics["loss_limit"]) if "loss_limit" in metrics else None
        loss = partial(figures.loss, losses=losses, band=band, validation=validation, entries=entries, last=last)
        yield render("loss", *WIDE, loss)
        yield render("terms", *SMALL, partial(figures.terms, columns=metrics, last=last))
        norm = partial(figures.norm, norms=metrics["gradient_norm"], entries=entries, last=last)
        yield render("norm", *SMALL, norm)
        yield render("rate", *SMALL, partial(figures.rate, rates=metrics["learning_rate"], entries=entries, last=last))
        speeds, mfu, goodput = metrics["tokens_per_second"], metrics.get("mfu"), metrics["goodput"]
        yield render("speed", *SMALL, partial(figures.speed, speeds=speeds, mfu=mfu, goodput=goodput, last=last))
    if last:
        firsts = first_samples(run.ledger, last, run.planned.global_batch)
        yield render("order", *FLAT, partial(figures.order, firsts=firsts, entries=entries, skips=run.ledger.skips))


def pictures_of_both(run: RunFiles, other: RunFiles | None) -> Iterator[Picture]:
    if other is not None and all("cross_entropy" in one.metrics for one in (run, other)):
        ours, theirs = (
            (one.kept("cross_entropy"), one.kept("cross_entropy", per_step=one.planned.tokens_per_step))
            for one in (run, other)
        )
        yield render("comparison", *FLAT, partial(figures.comparison, ours=ours, theirs=theirs))


def sources_or_reason(run: SavedRun) -> tuple[list[Source], str]:
    try:
        manifest = read_json(run.data_folder / "manifest.json", "shards")
    except (OSError, ValueError) as error:
        return [], f"The sources are not known: {error}"
    return sources_of(manifest, run.recorded["data"]["weights"]), ""


def explorer_or_reason(run: SavedRun, prompts: list[str] | None) -> tuple[list[NextToken], str]:
    """The next tokens after ``prompts``, or why there are none."""
    if prompts == []:
        return [], "prompts=[] asks for none."
    try:
        tokenizer = run.tokenizer()
        try:
            model = run.model()
        except RuntimeError as error:  # from load_state_dict
            raise ValueError(f"{run.newest.path} has other weights than this version's model") from error
        texts = [run.recorded["sample_prompt"]] if prompts is None else prompts
        contexts = [prompt_context(tokenizer, text) for text in texts]
        if prompts is None:
            verify(run.data_folder, ["validation"])
            shards = Shards(run.data_folder, "validation", run.sequence_length)
            length = min(BEGINNING_TOKENS, run.sequence_length)
            contexts += held_out_beginnings(shards, num_tokens=length, count=BEGINNINGS)
        return next_tokens(model, tokenizer, contexts), ""
    except (OSError, ValueError) as error:
        return [], f"The model could not be asked: {error}"
