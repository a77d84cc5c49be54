from hilum.progress import Lines


def test_only_lines_that_stay_are_said():
    said = []
    watch = Lines(said.append)

    watch.stage("Reading", 2)
    watch.advance(1, 2, "half")
    watch.finish()
    watch.finish("2 images read")

    assert said == ["2 images read"]
