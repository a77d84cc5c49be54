"""A Study -> a folder: one self-contained HTML page and a PNG a figure."""

from collections.abc import Iterator
from pathlib import Path

from hilum import files
from hilum.progress import count
from hilum.recipe import architectures
from hilum.report import formatting
from hilum.report.rendering import render_page, write_plots
from hilum.report.section import Block, Bullets, Facts, Heading, Page, Plots, Section, Tables, Tile, Tiles
from hilum.report.table import Cell, Grid, make_grid
from hilum.report.tuning import plots
from hilum.tuning.study import SEARCHES, Study, show

MOST_ROWS = 50
"""Trials in the page's table; `trials.csv` has all."""


def write(folder: Path, study: Study) -> Path:
    """Write the page of a study with at least one complete trial.

    Args:
        folder: Where to; figures of an earlier page in `plots/` are replaced as a whole.
        study: What to tell.

    Returns:
        The path of `tune.html`, which is written last.
    """
    page = make_page(study)
    text = render_page(page)
    with files.replacing_folder(folder / "plots") as target:
        write_plots(target, page.plots)
    files.write_text(folder / "tune.html", text)
    return folder / "tune.html"


def make_page(study: Study) -> Page:
    """Return the page of a study."""
    network = study.recipe.model.architecture
    varied = any(dimension.key == "model.architecture" for dimension in study.dimensions)
    name = study.recipe.name if varied else architectures.title(study.recipe.name, network)
    return Page(
        title=f"{name}: search",
        heading=f"Search: {name}",
        lead=_lead(study),
        sections=tuple(make(study) for make in SECTIONS),
        warnings=tuple(_warnings(study)),
        warnings_title="Before you take the best",
    )


def _summary(study: Study) -> Section:
    blocks = (Tiles(tuple(_tiles(study))), Heading("Limits"), Bullets(tuple(_limits(study))))
    return Section("summary", "Summary", blocks)


def _drawings(study: Study) -> Section:
    return Section("figures", "Figures", (Plots(tuple(plots.plots(study))),))


def _trials(study: Study) -> Section:
    blocks: tuple[Block, ...] = (Tables((_ranking(study),)),)
    failed = study.trials[study.trials["state"] == "failed"].to_dict("records")
    if failed:
        reasons = tuple(f"Trial {trial['trial']}: {trial['reason']}" for trial in failed)
        blocks = (*blocks, Heading("Failed"), Bullets(reasons))
    return Section("trials", "Trials", blocks)


def _how(study: Study) -> Section:
    return Section("how", "How it was searched", (Facts(tuple(_facts(study))),))


SECTIONS = (_summary, _drawings, _trials, _how)
"""What the page consists of, in order."""


def _lead(study: Study) -> str:
    keys = formatting.listed([each.key for each in study.dimensions])
    return f"A search for the values of {keys} that do best on validation; the test part was not read."


def _warnings(study: Study) -> Iterator[str]:
    if study.nothing_learned:
        yield f"{study.nothing_learned}. Which values are best says nothing here."
    done = len(study.trials)
    if done < study.planned:
        why = "The search was interrupted" if study.interrupted else "The search is not finished"
        yield f"{why}: {done} of {study.planned} trials are done. The same command goes on."
    failed = int((study.trials["state"] == "failed").sum())
    if failed:
        yield f"{count(failed, 'trial')} of {done} failed; the reasons stand below the table."
    for each in study.dimensions:
        best = study.ranked.iloc[0][each.key]
        numbers = [corner for corner in each.corners if isinstance(corner, int | float)]
        if len(numbers) == len(each.corners) and len(each.choices) != 2 and len(numbers) > 1:
            reach = (max(numbers) - min(numbers)) * (0.0 if each.choices else 0.02)
            if best <= min(numbers) + reach or best >= max(numbers) - reach:
                yield (
                    f"The best {each.name}, {show(best)}, lies at the end of what was tried ({each}); "
                    "a better one may lie beyond."
                )


def _tiles(study: Study) -> Iterator[Tile]:
    best, states = study.ranked.iloc[0], study.trials["state"]
    yield Tile(
        f"Best {study.figure}",
        formatting.number(best["value"]),
        "",
        f"trial {best['trial']}, epoch {best['best_epoch']} of {best['epochs']}",
    )
    counts = {state: int((states == state).sum()) for state in ("complete", "pruned", "failed")}
    others = [f"{counts['pruned']} ended early"] * bool(counts["pruned"])
    others += [f"{counts['failed']} failed"] * bool(counts["failed"])
    others += [f"{study.begun_again} begun again after a worker died"] * bool(study.begun_again)
    remark = ", ".join([f"of {study.planned} planned", *others])
    yield Tile("Complete trials", f"{counts['complete']:,}", "", remark)
    images, patients = study.images["val"]
    yield Tile("Compared on", f"{images:,}", "", f"validation images of {count(patients, 'patient')}")
    seconds = float(study.trials["seconds"].sum())
    yield Tile("Training", _duration(seconds), "", "all trials together, validation left out")


def _ranking(study: Study) -> Grid:
    ranked = study.ranked.head(MOST_ROWS)
    heads = [study.figure, "best epoch", "epochs", *(each.name for each in study.dimensions)]
    rows = []
    for place, row in enumerate(ranked.to_dict("records")):
        value = Cell(formatting.number(row["value"], digits=4), extreme="best" if place == 0 else "")
        settings = (Cell(show(row[each.key])) for each in study.dimensions)
        rows.append(
            (
                f"Trial {row['trial']}",
                [value, Cell(str(row["best_epoch"])), Cell(str(row["epochs"])), *settings],
            )
        )
    number = len(study.ranked)
    caption = f"The {number} complete trials, best first" if number > 1 else "The one complete trial"
    if number > MOST_ROWS:
        caption = f"The best {MOST_ROWS} of {number} complete trials; trials.csv has all"
    return make_grid(caption, "", heads, rows)


def _limits(study: Study) -> Iterator[str]:
    yield (
        "The best of many figures on the same validation images flatters, the more the more was tried: what the best "
        "recipe is worth, its test tells, once."
    )
    if "train.seed" not in {each.key for each in study.dimensions}:
        yield (
            "Each trial is one training with one seed. How much a figure moves by the seed alone was not measured; "
            "vary train.seed to see it, and take smaller differences for none."
        )
    if study.importances:
        yield "Importances hold within what was tried, and change with it."


def _facts(study: Study) -> Iterator[tuple[str, str]]:
    yield "Search", f"{study.search}: {SEARCHES[study.search]}"
    for each in study.dimensions:
        yield each.key, str(each)
    yield "Compared by", f"{study.monitor}, at each trial's best epoch"
    yield "Network", f"{study.recipe.model.architecture}, trained by {study.engine}"
    for part, (images, patients) in study.images.items():
        yield part, f"{count(images, 'image')} of {count(patients, 'patient')}"
    yield "Beside this page", "best.toml (train it with hilum train), trials.csv, plots/"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
