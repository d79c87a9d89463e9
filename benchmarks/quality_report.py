"""Tables and targets of `benchmarks.quality`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.common import table
from benchmarks.quality_sets import ALL_METRICS, QUICK_METRICS, SET_KEYS, WHOLE_SETS, QualitySet
from rasr.evaluation import METRICS, compare_reports

LABELS = {
    "bicubic": "bicubic",
    "without": "without reference",
    "same": "with the other half of the photo",
    "sceaux": "with another view of the same thing",
    "random": "with a random reference",
    "retrieved": "with the retrieved reference",
}
# {metric: (least gain over bicubic, gain to aim at)}
GAINS = {"psnr": (0.5, 1.0), "ssim": (0.02, 0.04)}
BETTER = ("fsim", "gmsd", "niqe")
RANDOM_LOSS = 0.1  # dB
SECONDS, GIGABYTES = 2.0, 1.0

Reports = dict[str, dict[str, dict[str, Any]]]
"""{set: {method: report of `evaluate_folders`}}"""


@dataclass(frozen=True)
class Target:
    """One wish, and what came of it."""

    what: str
    wanted: str
    measured: str
    verdict: str


def set_table(quality_set: QualitySet, reports: dict[str, dict[str, Any]]) -> str:
    """Means of every method, differences to bicubic in brackets."""
    shown = [name for name in ALL_METRICS if any(name in report["mean"] for report in reports.values())]
    header = [quality_set.title, *(f"{METRICS[name].title} {_arrow(name)}" for name in shown)]
    base = reports["bicubic"]["mean"]
    rows = []
    for method, report in reports.items():
        cells = [LABELS[method]]
        for name in shown:
            mean = report["mean"].get(name)
            text = "-" if mean is None else f"{mean:.{METRICS[name].digits}f}"
            if mean is not None and method != "bicubic":
                text += f" ({_signed(name, mean - base[name])})"
            cells.append(text)
        rows.append(cells)
    return table(header, rows)


def compare_references(sets: list[QualitySet], reports: Reports) -> list[dict[str, Any]]:
    """With each reference minus without, paired by image: one entry per set, reference and metric.

    The halves come from several sets: each of these has entries of its own besides those of all.
    """
    entries = []
    for one in sets:
        origins = {case.name: case.origin for case in one.cases}
        groups = {one.key: set(origins)}
        if one.key == "halves":
            for origin in dict.fromkeys(origins.values()):
                groups[f"halves of {origin}"] = {name for name in origins if origins[name] == origin}
        for method, report in reports[one.key].items():
            if method in ("bicubic", "without"):
                continue
            for title, names in groups.items():
                pair = [_part(each, names) for each in (report, reports[one.key]["without"])]
                entries += [
                    {"set": title, "method": method, **asdict(comparison)}
                    for comparison in compare_reports(*pair)
                    if comparison.metric in QUICK_METRICS
                ]
    return entries


def comparison_table(entries: list[dict[str, Any]]) -> str:
    """Differences with their 95 % bootstrap intervals."""
    rows: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        name = entry["metric"]
        low, high = (_signed(name, end) for end in entry["interval"])
        row = rows.setdefault((entry["set"], entry["method"]), [str(entry["count"])])
        row.append(f"{_signed(name, entry['mean_difference'])} ({low} to {high})")
    header = ["set", "reference", "images", *(f"{METRICS[m].title} {_arrow(m)}" for m in QUICK_METRICS)]
    return table(header, [[key, method, *cells] for (key, method), cells in rows.items()])


def speed_table(speed: dict[str, float]) -> str:
    """Seconds and memory of 128x128 -> 512x512."""
    kinds = [kind for kind in ("without", "with") if f"seconds_{kind}" in speed]
    rows = [[f"{kind} reference", speed[f"seconds_{kind}"], speed[f"peak_gb_{kind}"]] for kind in kinds]
    text = table(["128x128 -> 512x512", "s per image (median, warm)", "peak RSS GB"], rows)
    load, threads = speed["load_average"], speed["threads"]
    imports = speed["imports_gb"]
    return (
        f"{text}\n\n{threads} threads of the CPU; load average of the machine before: {load:.1f}; "
        f"{imports:.2f} GB of the memory are the imports, before any weights."
    )


def check_targets(reports: Reports, entries: list[dict[str, Any]], speed: dict[str, float]) -> list[Target]:
    """Every target with its figure; what was not measured is said to be so."""
    targets = []
    for key in WHOLE_SETS:
        targets += _against_bicubic(key, reports.get(key))
    found = {(entry["set"], entry["method"], entry["metric"]): entry for entry in entries}
    for key, method in (("halves", "same"), ("sceaux", "sceaux")):
        for name in ("psnr", "gmsd"):
            targets.append(_with_reference(key, method, name, found.get((key, method, name))))
    targets += [_random(key, found.get((key, "random", "psnr"))) for key in SET_KEYS if key != "halves"]
    targets += [
        _at_most("128x128 -> 512x512, no reference", speed.get("seconds_without"), SECONDS, "s"),
        _at_most("128x128 -> 512x512, reference", speed.get("seconds_with"), SECONDS, "s"),
        _at_most(
            "peak memory", max((v for k, v in speed.items() if "peak" in k), default=None), GIGABYTES, "GB"
        ),
    ]
    return targets


def targets_table(targets: list[Target]) -> str:
    """Markdown."""
    return table(
        ["target", "wanted", "measured", ""], [[t.what, t.wanted, t.measured, t.verdict] for t in targets]
    )


def _against_bicubic(key: str, reports: dict[str, dict[str, Any]] | None) -> list[Target]:
    targets = []
    for name in (*GAINS, *BETTER):
        least, aim = GAINS.get(name, (0.0, None))
        wanted = "better" if aim is None else f"+{least} (aim +{aim})"
        what = f"{key}: {METRICS[name].title} against bicubic"
        if reports is None or name not in reports["without"]["mean"]:
            targets.append(Target(what, wanted, "not measured", "-"))
            continue
        difference = reports["without"]["mean"][name] - reports["bicubic"]["mean"][name]
        gain = -difference if METRICS[name].lower_better else difference
        is_met = gain > 0 if aim is None else gain >= least
        verdict = "met, the aim too" if aim is not None and gain >= aim else _verdict(is_met)
        targets.append(Target(what, wanted, _signed(name, difference), verdict))
    return targets


def _with_reference(key: str, method: str, name: str, entry: dict[str, Any] | None) -> Target:
    what = f"{key}: {METRICS[name].title}, {LABELS[method]} minus without"
    wanted = f"interval {'below' if METRICS[name].lower_better else 'above'} 0"
    if entry is None:
        return Target(what, wanted, "not measured", "-")
    low, high = entry["interval"]
    is_met = high < 0 if METRICS[name].lower_better else low > 0
    return Target(what, wanted, _interval(entry), _verdict(is_met))


def _random(key: str, entry: dict[str, Any] | None) -> Target:
    what = f"{key}: PSNR, {LABELS['random']} minus without"
    wanted = f"no gain clear of 0, at least -{RANDOM_LOSS}"
    if entry is None:
        return Target(what, wanted, "not measured", "-")
    is_met = entry["mean_difference"] >= -RANDOM_LOSS and entry["interval"][0] <= 0
    return Target(what, wanted, _interval(entry), _verdict(is_met))


def _at_most(what: str, value: float | None, limit: float, unit: str) -> Target:
    if value is None:
        return Target(what, f"at most {limit:g} {unit}", "not measured", "-")
    return Target(what, f"at most {limit:g} {unit}", f"{value:.2f} {unit}", _verdict(value <= limit))


def _part(report: dict[str, Any], names: set[str]) -> dict[str, Any]:
    per_image = {name: row for name, row in report["per_image"].items() if name in names}
    return report | {"per_image": per_image}


def _interval(entry: dict[str, Any]) -> str:
    low, high = (_signed(entry["metric"], end) for end in entry["interval"])
    return f"{_signed(entry['metric'], entry['mean_difference'])} ({low} to {high})"


def _signed(metric: str, value: float) -> str:
    digits = 3 if metric == "psnr" else METRICS[metric].digits
    return f"{value:+.{digits}f}"


def _arrow(metric: str) -> str:
    return "↓" if METRICS[metric].lower_better else "↑"


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "NOT met"
