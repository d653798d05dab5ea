"""Every benchmark in turn, each in a process of its own, and one table of what was judged.

    python -m benchmarks [--full] [--only loss_head data ...] [--json PATH]

Quick takes under ten minutes on two cores, and ``--full`` has more rounds, shapes and peers. Peers live in environments
of their own, which the first run makes.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.report import Report, by_command, print_table


class Part(NamedTuple):
    """A module of this folder and its options, None where it is left out; ``launched`` as launch/local.sh would."""

    name: str
    quick: str | None
    full: str
    launched: bool = False


PARTS = (
    Part("peers", quick="--rounds 9", full="--full --rounds 15"),
    Part("overhead", quick="--rounds 7 --steps 100", full=""),
    Part("speed", quick="--rounds 9", full=""),
    Part("loss_head", quick="--rounds 2", full="--full --rounds 5"),
    Part("document_mask", quick="--rounds 2", full=""),
    Part("data", quick="--rounds 5 --only seek loader", full=""),
    Part("startup", quick="--rounds 2", full="--rounds 7"),
    Part("saving", quick="--rounds 5", full="--parameters 30M 124M --rounds 9", launched=True),
    Part("scaling", quick="--rounds 3 --steps 2", full=""),
    Part("guard", quick=None, full=""),
    Part("float8", quick=None, full=""),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the tables to this file")
    parser.add_argument("--full", action="store_true", help="all rounds, shapes and peers")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="these parts alone")
    options = parser.parse_args()
    without_quick = {part.name for part in PARTS if part.quick is None} & set(options.only or ())
    if without_quick and not options.full:
        parser.error(f"{', '.join(sorted(without_quick))} takes too long for a quick run: add --full")
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json {options.json}: there is no folder {options.json.parent}")
    report = Report()
    failed = []
    for part in PARTS:
        arguments = part.full if options.full else part.quick
        if arguments is None or (options.only and part.name not in options.only):
            continue
        prefix = "source launch/environment.sh; " if part.launched else ""
        shown = f"{prefix}python -m benchmarks.{part.name} {arguments}".rstrip()
        print(f"\n== {shown}", flush=True)
        with TemporaryDirectory() as folder:
            path = Path(folder, "part.json")
            command = [sys.executable, "-m", f"benchmarks.{part.name}", *arguments.split(), "--json", str(path)]
            if subprocess.run(["bash", "-c", f'{prefix}exec "$@"', "bash", *command], check=False).returncode:
                failed.append(part.name)
                continue
            content = json.loads(path.read_text())
        report.tables |= content["tables"]
        report.judged += [row | {"command": shown} for row in content["judged"]]
    print("\nWhat was judged, and the command of each part")
    for shown, rows in by_command(report.judged):
        print_table(shown, rows)
    report.write(options.json)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
