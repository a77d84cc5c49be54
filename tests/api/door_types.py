"""A file that uses the door as a user would. Nothing runs it: `make check` reads its types, strictly."""

import hilum


def use() -> tuple[float, tuple[str, ...], int, int | None]:
    """Use what `import hilum` gives, each result as the type that its docstring says."""
    model = hilum.load("runs/k")
    table = hilum.read("chest_xray")
    probability: float = float(model.predict("film.png").probabilities[0, 0])
    names: tuple[str, ...] = model.findings
    run = hilum.train(table, "runs/k", hilum.load_recipe("demo"), watch=hilum.Lines(print))
    reads: int = run.evaluate().value.test_reads
    trials: int = len(hilum.tune(table, "tuned", "demo", {"train.seed": [0, 1]}).value.trials)
    best = hilum.compare({"a": "runs/a", "b": "runs/b"}).value.models[0].best_epoch
    hilum.evaluate(model, table, split="val").plot("roc").save("roc.png")
    hilum.score("theirs.csv", table).to_frame().to_csv("scored.csv")
    hilum.explore(table).write("explored")
    hilum.audit(table).write("audited")
    seen: list[tuple[str, float]] = [
        (case.finding, case.probability) for case in model.explain(["a.png", b"..."], findings=["Pneumonia"])
    ]
    return probability + seen[0][1], names, reads + trials, best
