"""`diffalign evaluate --suite`: a benchmark from prompts to a result file and a page, resumed where it was stopped."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.commands import _suite_images as drawing
from diffalign.commands._model_options import MODEL
from diffalign.commands._outputs import check_writable, write_or_rescue
from diffalign.commands._runs import Run
from diffalign.commands._suite_generation import begun_settings, draw_missing
from diffalign.commands._suite_judges import make_judges, named_judges, needed_roles, read_options
from diffalign.commands._suite_layout import some
from diffalign.commands._suite_parts import Part, members, read_parts
from diffalign.commands._suite_processes import Processes, join_processes
from diffalign.commands._suite_result import described_judge, make_result, relative_folder, variant_of
from diffalign.commands._suite_scores import Scored, batches_of, score_batch, unreadable
from diffalign.commands._suite_tables import result_table, suites_table

if TYPE_CHECKING:
    from diffalign.evaluation.judges import Judges

IMAGES, RESULT, PAGE, ANSWERS = "images", "result.json", "comparison.html", "answers.sqlite"
"""Names in the output folder."""
UNUSED = ("reward_funcs", "reward_kwargs", "baseline", "images_per_scale")
"""Options of `evaluate` that a suite has no use for."""


def run_suite(args: argparse.Namespace, trained: Run | None) -> int:
    """Measures a suite: draws what is missing, scores, writes `result.json` and `comparison.html`."""
    if args.suite == "list":
        print(suites_table())
        return 0
    suites, options = members(args.suite), read_options(args.judge_kwargs)
    _check_options(args)
    wanted = needed_roles(suites.values(), named_judges(args.detector, args.judges))
    output, others = Path(args.output or f"suites/{args.suite}"), _others(args)
    processes = join_processes(args.device)
    if processes.main:
        check_writable(output / RESULT)
    processes.wait()
    judges = make_judges(wanted, options, args.device, output / ANSWERS)
    parts = read_parts(suites, args.prompts, judges, args.max_prompts)
    _check_comparable(args, parts, judges, others)
    generation, folder = None, Path(args.images) if args.images else output / IMAGES
    begun = {} if args.images else begun_settings(folder)
    usual = begun.get("images_per_prompt", parts[0].suite.images_per_prompt)
    args.images_per_prompt = args.images_per_prompt or usual
    if args.images:
        found = _given_images(args, parts, folder, processes)
    else:
        found = drawing.plan_shots(parts, args.images_per_prompt)
        del judges  # loaded so far to refuse wrong options early; drawing needs the memory
        generation = draw_missing(args, trained, parts, found.shots, folder, processes)
        judges = make_judges(wanted, options, args.device, output / ANSWERS)
    scored = _score(args, parts, judges, found.shots, folder, processes)
    if processes.main:
        about = _about(args, trained, generation, found, scored, relative_folder(folder, output / RESULT))
        result = make_result(args.suite, parts, judges, found.shots, scored.outcomes, about)
        _write(args, result, output, others)
    return 0


def _check_options(args: argparse.Namespace) -> None:
    given = [name for name in UNUSED if getattr(args, name)]
    if given:
        raise ValueError(f"--suite has no use for --{given[0]}: a suite has its own judges and rules (--judges)")
    if args.prompts is None:
        raise ValueError(
            f"--suite {args.suite} needs --prompts, the benchmark's own file; docs/suites/running.md has where"
        )
    if args.guidance_scales and len(args.guidance_scales) > 1:
        raise ValueError("--suite draws at one guidance scale: give one to --guidance_scales")
    args.guidance_scale = args.guidance_scales[0] if args.guidance_scales else None
    args.seed = 0 if args.seed is None else args.seed
    if args.partial and not args.images:
        raise ValueError("--partial is for --images: what is drawn here is whole")


def _others(args: argparse.Namespace) -> list[Any]:
    """Results to compare with."""
    from diffalign.report.suite_results import read_result

    return [read_result(name) for name in args.against or []]


def _check_comparable(args: argparse.Namespace, parts: list[Part], judges: Judges, others: list[Any]) -> None:
    """Refuses, before anything is drawn, a comparison that would be refused after it."""
    from diffalign.report.suite_results import SuiteResult, check_same_protocol

    keys = dict.fromkeys((part.task_of(line), line["prompt"]) for part in parts for line in part.lines)
    planned = {
        "suite": args.suite,
        "variant": variant_of(args.suite, parts, judges),
        "judges": {role: described_judge(getattr(judges, role)) for role in judges.names()},
        "prompts": [{"task": task, "prompt": prompt} for task, prompt in keys],
    }
    check_same_protocol([SuiteResult("this evaluation", None, planned), *others], mixed=args.mixed)


def _given_images(args: argparse.Namespace, parts: list[Part], folder: Path, processes: Processes) -> drawing.Shots:
    """Images made elsewhere, with a list of what is not as it should be."""
    found = drawing.find_shots(parts, folder, args.images_per_prompt)
    broken = processes.gather(list(unreadable(processes.share(found.shots), folder)))
    lines = [
        f"{what} images: {len(names)} ({some(sorted(names))})"
        for what, names in (("missing", found.missing), ("unreadable", broken))
        if names
    ]
    if lines and not args.partial:
        raise ValueError(
            f"{folder}: {'; '.join(lines)}; expected are {args.images_per_prompt} images of each prompt "
            "(--images_per_prompt). --partial scores the others, and the result says so"
        )
    if processes.main:
        extra = [f"images of no prompt, left out: {len(found.extra)} ({some(found.extra)})"]
        for line in [*lines, *(extra if found.extra else [])]:
            print(f"{folder}: {line}", flush=True)
    return found


def _score(
    args: argparse.Namespace,
    parts: list[Part],
    judges: Judges,
    shots: list[drawing.Shot],
    folder: Path,
    processes: Processes,
) -> Scored:
    """The outcome of every image, from all processes."""
    from tqdm import tqdm

    own = processes.share(batches_of(shots, args.judge_batch_size))
    found = Scored({}, {})
    with tqdm(total=sum(map(len, own)), desc="judge", unit="image", disable=not processes.main) as bar:
        for numbers in own:
            one = score_batch(parts, judges, shots, numbers, folder)
            found.outcomes.update(one.outcomes)
            found.broken.update(one.broken)
            bar.update(len(numbers))
    everything = processes.gather([*found.outcomes.items()])
    broken = processes.gather([*found.broken.items()])
    return Scored(dict(sorted(everything)), dict(broken))


def _about(
    args: argparse.Namespace,
    trained: Run | None,
    generation: dict[str, Any] | None,
    found: drawing.Shots,
    scored: Scored,
    folder: str,
) -> dict[str, Any]:
    """Label, generation and images, for the result."""
    name = args.label or (Path(args.images).name if args.images else None)
    name = name or (trained.folder.name if trained is not None else Path(args.lora or args.model or MODEL).name)
    failed = sorted(
        shot.file for number, shot in enumerate(found.shots)
        if scored.outcomes[number].score != scored.outcomes[number].score and shot.file not in scored.broken
    )  # fmt: skip
    images = {
        "folder": folder, "count": len(found.shots), "missing": found.missing, "broken": sorted(scored.broken),
        "extra": found.extra, "failed": failed,
    }  # fmt: skip
    return {
        "label": name, "images_per_prompt": args.images_per_prompt, "generation": generation, "images": images,
    }  # fmt: skip


def _write(args: argparse.Namespace, result: dict[str, Any], output: Path, others: list[Any]) -> None:
    """Writes result and page, prints the table."""
    from diffalign.report.suite_page import write_suite_page
    from diffalign.report.suite_results import read_result

    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    path = write_or_rescue(output / RESULT, lambda one: one.write_text(text + "\n", encoding="utf-8"))
    mine = read_result(path)
    page = write_or_rescue(
        path.parent / PAGE, lambda one: write_suite_page([*others, mine] if others else [mine], one, mixed=args.mixed)
    )
    print(result_table(result))
    print(f"{path}\n{page}")
