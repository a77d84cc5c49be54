"""Real files of public collections: what each of them must come to."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hilum.errors import ImageError
from hilum.images import prepare, read

pytestmark = pytest.mark.real

EXPECTED = "a CR or DX image for presentation expected"
SECONDARY = f"Secondary Capture Image Storage that is not declared CR or DX; {EXPECTED}"
REFUSED = {
    "CT_small.dcm": f"CT Image Storage; {EXPECTED}",
    "GH538-jpeg14sv1.dcm": SECONDARY,
    "JPEG2000.dcm": SECONDARY,
    "JPEGLSNearLossless_16.dcm": SECONDARY,
    "JPGExtended.dcm": SECONDARY,
    "MR_small_RLE.dcm": f"MR Image Storage; {EXPECTED}",
    "MR_small_jp2klossless.dcm": f"MR Image Storage; {EXPECTED}",
    "MR_small_jpeg_ls_lossless.dcm": f"MR Image Storage; {EXPECTED}",
    "MR_truncated.dcm": f"MR Image Storage; {EXPECTED}",
    "SC_rgb_rle_2frame.dcm": SECONDARY,
    "badVR.dcm": f"RT Dose Storage; {EXPECTED}",
    "image_dfl.dcm": SECONDARY,
    "multiframe.dcm": f"VL Whole Slide Microscopy Image Storage; {EXPECTED}",
    "no_meta.dcm": "not a PNG, JPEG, TIFF, BMP, WebP or DICOM file",
    "test-SR.dcm": f"Comprehensive SR Storage; {EXPECTED}",
}
READ = ("fuji_cr_mono1_10bit_no_meta", "nih_dx_mono2_1024.dcm")


def test_every_dicom_file_is_expected(shared_data: Path) -> None:
    assert {path.name for path in (shared_data / "dicom").iterdir()} == {*REFUSED, *READ}


@pytest.mark.parametrize("name", REFUSED)
def test_dicom_that_is_no_radiograph(shared_data: Path, name: str) -> None:
    with pytest.raises(ImageError) as caught:
        prepare(shared_data / "dicom" / name, 224)
    assert str(caught.value) == REFUSED[name]


def test_fuji_cr(shared_data: Path) -> None:
    radiograph = read(shared_data / "dicom" / READ[0])
    assert radiograph.grey.shape == (440, 440)
    assert radiograph.provenance.steps == ("window linear", "MONOCHROME1 inverted")
    assert (radiograph.provenance.view, radiograph.provenance.notices) == ("PA", ())
    stored = np.frombuffer((shared_data / "dicom" / READ[0]).read_bytes()[-440 * 440 * 2 :], "<u2")
    window = ((stored.reshape(440, 440) - 549.5) / 1023 + 0.5).clip(0, 1)
    np.testing.assert_allclose(radiograph.grey, 1 - window, atol=1e-6)
    lung, spine = radiograph.grey[150:250, 80:130].mean(), radiograph.grey[150:350, 200:225].mean()
    assert lung < 0.6 < spine


def test_nih_dx(shared_data: Path) -> None:
    prepared = prepare(shared_data / "dicom" / READ[1], 1024)
    stored = (shared_data / "dicom" / READ[1]).read_bytes()[-(2**20) :]
    np.testing.assert_array_equal(prepared.pixels, np.frombuffer(stored, np.uint8).reshape(1024, 1024))
    assert prepared.provenance.steps == ("theoretical range",)
    assert (prepared.provenance.age, prepared.provenance.sex) == (81, "M")
    assert [warning.text.split(":")[0] for warning in prepared.provenance.notices] == [
        "a secondary capture that is declared CR or DX",
        "the patient's age has no unit and was taken for years",
    ]


def test_nih_pngs(shared_data: Path) -> None:
    paths = sorted((shared_data / "nih" / "images").glob("*.png"))
    assert len(paths) == 81
    with_alpha, with_profile = 0, 0
    for path in paths:
        radiograph = read(path)
        assert radiograph.grey.shape == (1024, 1024)
        assert radiograph.provenance.notices == ()
        with_alpha += "opaque alpha dropped" in radiograph.provenance.steps
        with_profile += "ICC profile ignored" in radiograph.provenance.steps
        if radiograph.provenance.steps:
            red = np.asarray(Image.open(path))[..., 0]
            np.testing.assert_array_equal(np.rint(radiograph.grey * 255), red)
    assert (with_alpha, with_profile) == (7, 1)


def test_nih_png_shrinks_as_the_mean_of_its_pixels(shared_data: Path) -> None:
    path = shared_data / "nih" / "images" / "00000001_000.png"
    stored = np.asarray(Image.open(path)).astype(float)
    means = stored.reshape(256, 4, 256, 4).mean(axis=(1, 3))
    np.testing.assert_array_equal(prepare(path, 256).pixels, np.rint(means))


def test_kermany_jpegs(shared_data: Path, tmp_path: Path) -> None:
    paths = sorted((shared_data / "kermany_224").glob("*/*/*.jpeg"))[::117]
    archive = tmp_path / "kermany.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        for path in paths:
            writer.write(path, path.name)
    for path in paths:
        prepared = prepare(path, 224)
        decoded = np.asarray(Image.open(path).convert("L")).astype(int)
        assert prepared.provenance.format == "JPEG"
        # The luma as stored, against the luma of the colours made from it.
        assert np.abs(prepared.pixels - decoded).max() <= 2
        np.testing.assert_array_equal(prepare(f"{archive}::{path.name}", 224).pixels, prepared.pixels)


@pytest.mark.parametrize("shape", [(2000, 2000), (2017, 2444), (1858, 2090)])
def test_reduced_decode_of_real_radiographs(
    shared_data: Path, tmp_path: Path, shape: tuple[int, int]
) -> None:
    differences = []
    for path in sorted((shared_data / "nih" / "images").glob("*.png"))[:40:10]:
        image = Image.open(path).convert("L").resize(shape[::-1], Image.Resampling.BICUBIC)
        image.save(tmp_path / "a.jpg", quality=92)
        Image.open(tmp_path / "a.jpg").save(tmp_path / "a.png", compress_level=0)
        reduced, full = prepare(tmp_path / "a.jpg", 224), prepare(tmp_path / "a.png", 224)
        assert reduced.provenance.steps == ("decoded at 1/4 scale",)
        differences.append(np.abs(reduced.pixels.astype(float) - full.pixels))
    # In grey levels of 255.
    assert np.mean(differences) < 0.5
    assert np.quantile(differences, 0.999) <= 6
