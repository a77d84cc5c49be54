from hilum.report import formatting
from hilum.report.evaluation import tables
from hilum.report.table import Cell, Column, Grid


def test_a_frame_has_the_grids_rows_columns_and_cells(make_evaluation):
    evaluation = make_evaluation("binary")
    grid = tables.calls(evaluation)

    frame = grid.to_frame()

    assert frame.index.name == grid.corner
    assert tuple(frame.index) == tuple(name for name, _ in grid.rows)
    assert tuple(frame.columns) == tuple(column.name for column in grid.columns)
    sensitivity = evaluation.metrics["findings"][evaluation.findings[0]]["sensitivity"]
    assert formatting.estimate(sensitivity) in frame.to_numpy()


def test_a_cell_without_an_interval_is_the_value_alone():
    cells = (Cell("0.9", "0.8–1.0"), Cell("–", note="a"))
    grid = Grid("Caption", "Finding", (Column("A"), Column("B")), (("Mass", cells),))

    assert grid.to_frame().loc["Mass"].tolist() == ["0.9 (0.8–1.0)", "–"]
