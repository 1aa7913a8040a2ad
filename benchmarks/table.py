"""Markdown of the results. Pure: from JSON to text."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

HEAD = """# Benchmarks

Us and the peers side by side on the same data and the same machine, interleaved; medians, and the wall of every run.
Made by `python -m benchmarks` (`make bench`) and `python -m benchmarks table results.json`; what each figure does is
told in [`benchmarks/figures/`](../benchmarks/figures/). Nothing counts after a run that was not ok, or a result that
was not equal: the figure fails.

*Stolen* is the share of the processors' time that the host of the virtual machine gave to others, run by run. A run
that can be repeated and lost more than 3 % is measured again, up to three times (`--again`), ours as theirs; of its
tries the one that lost least counts, whatever its wall, and the walls of the others stand under *not counted*.
"""


def write_page(results: Sequence[Mapping[str, Any]]) -> str:
    """The whole page. Of the same figure the last result counts; each stands under the machine it was measured on."""
    last = {figure["name"]: (number, figure) for number, one in enumerate(results) for figure in one["figures"]}
    lines = [HEAD]
    for number, one in enumerate(results):
        mine = [figure for place, figure in last.values() if place == number]
        if not mine:
            continue
        lines += _machine(one)
        for figure in mine:
            lines += ["", *figure_lines(figure)]
    return "\n".join(lines).rstrip() + "\n"


def _machine(one: Mapping[str, Any]) -> list[str]:
    m = one["machine"]
    about = (
        f"**Machine.** {m['cpu']}, {m['cores']} cores, {m['memory_bytes'] / 2**30:.0f} GiB of memory, {m['system']}; "
        f"{m['date'][:10]}; load before: {m['load_before']}. Scale {one['scale']:g}, {one['rounds']} rounds."
    )
    versions = "; ".join(f"{name}: {text}" for name, text in one["versions"].items())
    settings = ", ".join(f"{name} = {value}" for name, value in one["settings"].items())
    return ["", about, "", f"**Versions.** {versions}.", "", f"**Server.** {settings}."]


def figure_lines(figure: Mapping[str, Any]) -> list[str]:
    """One figure: goals, contestants, what was checked."""
    lines = [f"## {figure['title']}", ""]
    if figure["skipped"]:
        return [*lines, f"Not measured: {figure['skipped']}"]
    lines += [f"Data: {_data(figure['data'])}.", ""]
    lines += ["| what | ours | peer | ratio or amount | goal | met |", "|---|---|---|---|---|---|"]
    lines += [_verdict(v) for v in figure["verdicts"]]
    if figure["runs"]:
        lines += ["", *_contestants(figure["runs"])]
    told = [*(f"Checked: {text}." for text in figure["checked"]), *(f"Note: {text}." for text in figure["notes"])]
    return lines + (["", *(f"- {text}" for text in told)] if told else [])


def _data(data: Mapping[str, Any]) -> str:
    words = []
    for name, value in data.items():
        if name.startswith("bytes"):
            words.append(f"{value / 1e6:,.0f} MB {name[6:].replace('_', ' ')}")
        elif isinstance(value, int):
            words.append(f"{value:,} {name.replace('_', ' ')}")
        elif isinstance(value, Mapping):
            words.append(f"{name}: " + ", ".join(f"{n:,} {k}" for k, n in value.items()))
        else:
            words.append(f"{name} {value}")
    return ", ".join(words)


def _verdict(v: Mapping[str, Any]) -> str:
    amount = v["peer_value"] is None
    value = _amount(v["value"], v["unit"]) if amount else f"{v['value']:.3g}×"
    goal = "" if v["goal"] is None else "≤ " + (_amount(v["goal"], v["unit"]) if amount else f"{v['goal']:g}×")
    met = {None: "", True: "yes", False: "**no**"}[v["met"]]
    peer = "" if amount else f"{_cell(v['peer'])}: {_amount(v['peer_value'], v['unit'])}"
    ours = f"{_cell(v['ours'])}: {_amount(v['ours_value'], v['unit'])}"
    return f"| {v['what']} | {ours} | {peer} | {value} | {goal} | {met} |"


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e6:,.2f} MB" if value < 1e8 else f"{value / 1e6:,.0f} MB"
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"


def _contestants(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Medians of every contestant (of memory the most) and all walls; columns that say nothing are left out."""
    names = list(dict.fromkeys(run["contestant"] for run in runs))
    columns: list[tuple[str, list[str]]] = [
        ("contestant", [_cell(name) for name in names]),
        ("n", [str(len(_of(runs, name))) for name in names]),
    ]
    for head, key, unit in (
        ("wall s", "wall", 1.0),
        ("CPU s client", "client_cpu", 1.0),
        ("CPU s server", "server_cpu", 1.0),
        ("MB", "bytes", 1e6),
        ("received MB", "received", 1e6),
        ("wire MB", "network", 1e6),
        ("peak MB", "peak_memory", 1e6),
    ):
        take = max if key == "peak_memory" else median
        values = [float(take([r[key] for r in _of(runs, name)])) / unit for name in names]
        if any(values):
            columns.append((head, [_number(value) if value else "" for value in values]))
    for head, cells in (
        ("stolen", [_stolen(_of(runs, n)) for n in names]),
        ("not counted", [_thrown(_of(runs, n)) for n in names]),
    ):
        if any(cells):
            columns.append((head, cells))
    columns.append(("walls", [" ".join(_number(r["wall"]) for r in _of(runs, name)) for name in names]))
    heads = [f"| {' | '.join(head for head, _ in columns)} |", "|---" * len(columns) + "|"]
    return heads + [f"| {' | '.join(cells)} |" for cells in zip(*(column for _, column in columns), strict=True)]


def _of(runs: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    return [run for run in runs if run["contestant"] == name]


def _stolen(runs: Sequence[Mapping[str, Any]]) -> str:
    """Of each run that counts; results of before it was measured say nothing."""
    return " ".join(f"{run['stolen']:.1%}" for run in runs if run.get("stolen") is not None)


def _thrown(runs: Sequence[Mapping[str, Any]]) -> str:
    return " ".join(_number(wall) for run in runs for wall in run.get("thrown", ()))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
