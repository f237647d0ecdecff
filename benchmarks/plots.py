"""Draw ``results.json`` as SVG, for the README: ``./run bench`` calls this at its end."""

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
    """Draw one bar per rival; one that has no figure says so."""
    names = [name for name, _value in figures]
    values = [value or 0 for _name, value in figures]
    drawn = axes.barh(
        names, [value * scale for value in values], color=[COLOURS[name] for name in names]
    )
    labels = [f"{value * scale:.1f} {unit}" if value else "nothing arrives" for value in values]
    axes.bar_label(drawn, labels, padding=4)
    axes.margins(x=0.25)
    axes.set_title(title, loc="left")


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


if __name__ == "__main__":
    main()
