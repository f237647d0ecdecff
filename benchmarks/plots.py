"""Draw ``results.json`` and ``dashboard.json`` as SVG: ``./run bench`` calls this at its end."""

from __future__ import annotations

import json
import pathlib

import matplotlib.pyplot as plt

plt.rcParams.update(
    {
        "svg.hashsalt": "bus_alt_connection",  # the same figures make the same file
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
)

FOLDER = pathlib.Path(__file__).parent
OURS = "bus_alt_connection"
COLOURS = {
    "stock, no pooler": "#7f8c8d",
    "stock, PgBouncer": "#c0392b",
    "stock, session pool": "#e0a030",
    "existing addon": "#2f6fa7",
    OURS: "#1e8449",
}


def save(figure, name: str):
    figure.tight_layout()
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def bars(axes, title: str, unit: str, figures: list, scale: float = 1.0):
    """Draw one bar per setup, labelled "nothing arrives" where it has no figure."""
    names = [name for name, _value in figures]
    values = [value or 0 for _name, value in figures]
    drawn = axes.barh(
        names, [value * scale for value in values], color=[COLOURS[name] for name in names]
    )
    labels = [f"{value * scale:.1f} {unit}" if value else "nothing arrives" for value in values]
    axes.bar_label(drawn, labels, padding=4)
    axes.margins(x=0.25)
    axes.set_title(title, loc="left")


def timeline(axes, series: dict, end: float):
    """Draw one bar per series, green where it is 1 and red where it is 0."""
    for row, points in enumerate(series.values()):
        for (at, value), (until, _next) in zip(points, [*points[1:], (end, 0)]):
            axes.barh(row, until - at, left=at, height=0.6, color="#1e8449" if value else "#c0392b")
    axes.set_yticks(range(len(series)), list(series))
    axes.set_ylim(-1, len(series))


def dashboard():
    """Draw the four panels of monitoring/grafana.json as Grafana lays them out."""
    kept = json.loads((FOLDER / "dashboard.json").read_text())
    figure, axes = plt.subplots(2, 2, figsize=(13, 6.5), sharex=True)
    for part, (title, series) in zip(axes.flat, kept["panels"].items()):
        part.set_title(title, loc="left")
        if part is axes[0][0]:
            timeline(part, series, kept["end"])
            continue
        shown = {name: points for name, points in series.items() if any(v for _at, v in points)}
        for number, (name, points) in enumerate(shown.items()):
            # two channels of one listener have the same line
            part.plot(*zip(*points), label=name, linestyle=(0, (6, 3 * number)))
        part.legend(fontsize=8, loc="best")
    axes[0][1].set(yscale="log", ylabel="s")
    axes[1][0].set(ylabel="1/s", ylim=(0, None))
    axes[1][1].set(ylabel="1/min", ylim=(0, None))
    for part in axes[1]:
        part.set_xlabel("seconds")
    save(figure, "dashboard")


def main():
    tables = json.loads((FOLDER / "results.json").read_text())

    figure, axes = plt.subplots(1, 2, figsize=(11, 3), sharey=True)
    notification = tables["notification"]
    bars(axes[0], "Commit with a notification (median)", "ms", notification["commit"], 1000)
    bars(axes[1], "… until the websocket's frame", "ms", notification["frame"], 1000)
    axes[0].invert_yaxis()
    save(figure, "notification")

    figure, axes = plt.subplots(figsize=(7, 4))
    for name, points in tables["crowds"].items():
        sizes, seconds = zip(*points)
        axes.plot(sizes, [s * 1000 for s in seconds], marker="o", label=name, color=COLOURS[name])
    axes.set(xscale="log", yscale="log", xlabel="websockets", ylabel="ms")
    axes.set_title("One notification, until the last websocket has it", loc="left")
    axes.legend()
    save(figure, "crowds")

    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
    for name, points in tables["backends"].items():
        sizes, rest, load = zip(*points)
        axes[0].plot(sizes, rest, marker="o", label=name, color=COLOURS[name])
        axes[1].plot(sizes, load, marker="o", label=name, color=COLOURS[name])
    for part, title in zip(axes, ("PostgreSQL's connections at rest", "… under load")):
        part.set(xlabel="HTTP workers", ylim=(0, None))
        part.set_title(title, loc="left")
    axes[0].legend(loc="upper left", fontsize=9)
    save(figure, "backends")

    figure, axes = plt.subplots(1, 2, figsize=(11, 3), sharey=True)
    for part, (title, rates) in zip(axes, tables["pages"].items()):
        bars(part, f"Pages per second, {title}", "/s", rates)
    axes[0].invert_yaxis()
    save(figure, "pages")

    dashboard()


if __name__ == "__main__":
    main()
