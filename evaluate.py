"""Measure, compare and tabulate restored images; `python evaluate.py --help` tells more."""

import logging
from pathlib import Path

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from rasr.cli import entry_point
from rasr.device import resolve_device
from rasr.errors import RasrError
from rasr.evaluation import (
    COMPLEXITY,
    FolderMethod,
    Protocol,
    ResultSet,
    Table,
    check_metrics,
    check_pairs,
    compare_reports,
    draw_largest_differences,
    evaluate_folders,
    fill_table,
    format_complexity,
    how_to_make,
    match_files,
    metrics_table,
    refuse,
    to_markdown,
    write_comparisons,
    write_contents,
    write_html,
    write_json,
    write_report,
    write_table,
)

logger = logging.getLogger(__name__)

# What a job does not read; to give it is a mistake.
UNREAD = {
    "complexity": ("table", "methods", "folders", "sr", "gt", "lq", "pair"),
    "table": ("sr", "gt", "lq", "pair"),
    "methods": ("sr",),
    "sr": ("pair",),
}


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@entry_point
def main(cfg: DictConfig) -> None:
    if cfg.output is None:
        raise RasrError("missing key: output; add output=... to the command, see --help")
    for key in ("metrics", "pair"):
        if isinstance(cfg[key], str):  # metrics=psnr
            cfg[key] = [cfg[key]]
    if cfg.report_only:
        page = write_html(cfg.output, images=cfg.report_images, crop_size=cfg.report_crop)
        logger.info("written: %s", page)
        return
    jobs = {
        "complexity": measure_complexity,
        "table": reproduce_table,
        "methods": compare_methods,
        "sr": measure_one,
    }
    job = next((name for name in jobs if cfg.get(name) or (name == "methods" and cfg.folders)), None)
    if job is None:
        raise RasrError(
            "missing key: sr; add sr=..., methods=[...], folders=..., table=... or complexity=..., see --help"
        )
    unread = [key for key in UNREAD[job] if cfg.get(key)]
    if unread:
        raise RasrError(f"{unread[0]}= has no meaning beside {job}=; leave one of them out, see --help")
    jobs[job](cfg)


def measure_one(cfg: DictConfig) -> None:
    """One folder of restored images."""
    report = measure(cfg, cfg.sr, cfg.gt, Path(cfg.output))
    label = Path(cfg.sr).resolve().name
    table = metrics_table(label, {label: report}, list(cfg.metrics))
    finish(cfg, table, [ResultSet({label: "."}, cfg.lq)])
    means = ", ".join(f"{name} {value:.4f}" for name, value in report["mean"].items())
    logger.info("%s over %d images; written to %s", means, report["count"], cfg.output)


def compare_methods(cfg: DictConfig) -> None:
    """Several methods on one data set."""
    output, device = Path(cfg.output), resolve_device(cfg.device)
    check_metrics(cfg.metrics, has_gt=cfg.gt is not None)  # before anything is restored
    methods = open_methods(cfg)
    keys = list(methods) if cfg.pair is None else check_pair(list(cfg.pair), list(methods))
    lq = None if cfg.lq is None else Path(cfg.lq)
    if cfg.strict:
        check_files(methods, lq, cfg.gt)
    reports = {}
    for key, method in methods.items():
        folder = method.restore_folder(lq, output / key / "sr", device)
        reports[key] = measure(cfg, folder, cfg.gt, output / key)
    labels = {key: method.label for key, method in methods.items()}
    if cfg.pair is not None:
        pair, names = (reports[keys[0]], reports[keys[1]]), (labels[keys[0]], labels[keys[1]])
        comparisons = compare_reports(*pair)
        write_comparisons(comparisons, names, output)
        draw_largest_differences(pair, names, comparisons[0].metric, output / "pair.png")
        logger.info("%s", (output / "pair.md").read_text("utf-8"))
    else:
        for name in ("pair.json", "pair.md", "pair.png"):  # of an earlier run
            (output / name).unlink(missing_ok=True)
    count = "1 method" if len(reports) == 1 else f"{len(reports)} methods"
    title = f"{count} on {Path(cfg.gt).name if cfg.gt else 'images without ground truth'}"
    labelled = {labels[key]: report for key, report in reports.items()}
    table = metrics_table(title, labelled, list(cfg.metrics))
    finish(cfg, table, [ResultSet({labels[key]: key for key in reports}, cfg.lq)])
    logger.info("%s\nwritten to %s", to_markdown(table), cfg.output)


def reproduce_table(cfg: DictConfig) -> None:
    """A table of the papers: its figures, and ours for what is on this machine."""
    output, device = Path(cfg.output), resolve_device(cfg.device)
    description = OmegaConf.to_container(cfg.table, resolve=True)
    methods = open_methods(cfg)
    unknown = [key for key in methods if key not in description["rows"]]
    if unknown:
        known = ", ".join(description["rows"])
        raise RasrError(f"table {description['name']} has no row {', '.join(unknown)}; its rows are {known}")
    columns = description["metrics"]
    if not set(cfg.metrics) <= set(columns):
        raise RasrError(f"metrics=[{','.join(cfg.metrics)}]: the table has only {', '.join(columns)}")
    produced = {}
    for set_key, data_set in description["sets"].items():
        for key, method in methods.items():
            lq = Path(data_set["lq"])
            if method.needs_lq and not lq.exists():
                raise RasrError(
                    f"{method.label} on {data_set['title']}: no photographs at {lq}; {how_to_make(lq.parent)}"
                )
            produced[set_key, key] = method.restore_folder(lq, output / set_key / key / "sr", device)

    def evaluate(set_key: str, key: str, folder: Path) -> dict:
        return measure(cfg, folder, description["sets"][set_key]["gt"], output / set_key / key)

    table, reports = fill_table(description, cfg.results, evaluate, produced)
    sets = []
    for set_key, data_set in description["sets"].items():
        keys = [key for one, key in reports if one == set_key]
        labelled = {f"{description['rows'][key]['label']} on {data_set['title']}": key for key in keys}
        lq = data_set["lq"] if Path(data_set["lq"]).exists() else None
        sets.append(ResultSet({label: f"{set_key}/{key}" for label, key in labelled.items()}, lq))
    finish(cfg, table, sets)
    logger.info("%s\nwritten to %s", to_markdown(table), cfg.output)


def measure_complexity(cfg: DictConfig) -> None:
    """Parameters, MACs, seconds and memory."""
    if cfg.weights is None:
        raise RasrError("missing key: weights; add weights=... to the command, see --help")
    figures = instantiate(cfg.complexity.case).measure(cfg.size, cfg.repeats, resolve_device(cfg.device))
    figures |= {"size": cfg.size, "repeats": cfg.repeats, "device": str(resolve_device(cfg.device))}
    write_json(figures, Path(cfg.output) / "complexity.json")
    logger.info("%s", "\n".join(format_complexity(figures, dict(cfg.complexity.paper))))
    logger.info("written to %s", Path(cfg.output) / "complexity.json")


def open_methods(cfg: DictConfig) -> dict:
    """The chosen methods by key; mistakes show before anything is restored."""
    chosen = cfg.get("methods") or {}
    if any(method.get("arguments", {}).get("weights", "") is None for method in chosen.values()):
        raise RasrError("missing key: weights; our own methods need weights=FILE, see --help")
    methods = {key: instantiate(method) for key, method in chosen.items()}
    folders = cfg.folders or {}
    if not isinstance(folders, DictConfig | dict):
        raise RasrError(f"folders={folders} has no names; write 'folders={{NAME: {folders}}}'")
    if taken := methods.keys() & folders.keys():
        raise RasrError(f"{', '.join(sorted(taken))}: a method and a folder of one name; rename the folder")
    methods |= {key: FolderMethod(key, folder) for key, folder in folders.items()}
    labels = [method.label for method in methods.values()]
    twins = sorted({label for label in labels if labels.count(label) > 1})
    if twins:
        raise RasrError(f"two methods are called {twins[0]}; rename one by methods.NAME.label=TEXT")
    waiting = [method.label for method in methods.values() if method.needs_lq]
    if waiting and cfg.lq is None and not cfg.get("table"):
        raise RasrError(f"{', '.join(waiting)}: photographs to restore are missing; give lq=FOLDER")
    return methods


def check_files(methods: dict, lq: Path | None, gt: str | None) -> None:
    """Refuse files that do not fit together before hours are spent on restoring."""
    for method in methods.values():
        if isinstance(method, FolderMethod):
            check_pairs(method.folder, gt)
    if lq is not None and lq.is_dir() and any(method.needs_lq for method in methods.values()):
        refuse(match_files(lq, gt, kind="lq")[1])


def check_pair(pair: list[str], methods: list[str]) -> list[str]:
    """The two names, or an error."""
    if len(set(pair)) != 2 or not set(pair) <= set(methods):
        raise RasrError(f"pair=[{','.join(pair)}] must name two of the methods {', '.join(methods)}")
    return pair


def measure(cfg: DictConfig, sr: str | Path, gt: str | Path | None, output: Path) -> dict:
    """Measure a folder and write its own result files."""
    report = evaluate_folders(
        sr,
        gt,
        metrics=[name for name in cfg.metrics if name not in COMPLEXITY],
        protocol=Protocol(**OmegaConf.to_container(cfg.protocol, resolve=True)),
        strict=cfg.strict,
        batch_size=cfg.batch_size,
        device=resolve_device(cfg.device),
        store=output / "scores.jsonl",
    )
    write_report(report, output)
    return report


def finish(cfg: DictConfig, table: Table, sets: list[ResultSet]) -> None:
    """Write the table and the page."""
    output = Path(cfg.output)
    write_table(table, output)
    write_contents(output, sets, references=cfg.references)
    page = None
    if cfg.report_images:
        page = write_html(output, images=cfg.report_images, crop_size=cfg.report_crop)
    if cfg.wandb is not None:
        log_to_wandb(cfg.wandb, table, output, page)


def log_to_wandb(project: str, table: Table, output: Path, page: Path | None) -> None:
    import wandb

    run = wandb.init(project=project, dir=str(output), mode="offline")
    columns = ["method", *(f"{column.group} {column.title}".strip() for column in table.columns)]
    rows = [[row.label, *row.values] for row in table.rows]
    run.log({"table": wandb.Table(columns=columns, data=rows)})
    if page is not None:
        run.log({"report": wandb.Html(page.read_text("utf-8"), inject=False)})
    run.finish()


if __name__ == "__main__":
    main()
