from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from harness.data.photos import decode_reduced, decode_rgb, photo_size
from harness.types import InputError


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A JPEG of 30 × 20 pixels: left half red, right half blue."""
    path = tmp_path / "000001.jpg"
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :15, 0] = pixels[:, 15:, 2] = 250
    Image.fromarray(pixels).save(path, quality=98, subsampling=0)
    return path


def test_channels_are_red_green_blue(photo: Path) -> None:
    pixels = decode_rgb(photo)
    assert pixels.shape == (20, 30, 3)
    assert pixels.dtype == np.uint8
    assert pixels[10, 5, 0] > 200 > 50 > pixels[10, 5, 2]
    assert pixels[10, 25, 2] > 200 > 50 > pixels[10, 25, 0]


def test_grey_photos_get_three_channels(tmp_path: Path) -> None:
    path = tmp_path / "000001.jpg"
    assert cv2.imwrite(str(path), np.full((8, 9), 130, np.uint8))
    assert decode_rgb(path).shape == (8, 9, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_ignored(photo: Path, tmp_path: Path, orientation: int) -> None:
    turned = tmp_path / "turned.jpg"
    with Image.open(photo) as image:
        exif = image.getexif()
        exif[0x0112] = orientation
        image.save(turned, quality=98, subsampling=0, exif=exif)
    pixels = decode_rgb(turned)
    assert pixels.shape == (20, 30, 3)
    assert pixels[10, 5, 0] > 200
    assert photo_size(turned) == (30, 20)


def test_size_is_width_then_height(photo: Path) -> None:
    assert photo_size(photo) == (30, 20)


def _noisy_jpeg(path: Path, **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "JPEG", **options)
    return path.read_bytes()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9, 0.99])
def test_a_cut_photo_is_named(tmp_path: Path, kept: float, progressive: bool) -> None:
    path = tmp_path / "000007.jpg"
    data = _noisy_jpeg(path, progressive=progressive)
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InputError, match=r"000007\.jpg: is (cut short|not an image).*restore"):
        decode_rgb(path)


def test_a_thumbnail_does_not_hide_a_cut(tmp_path: Path) -> None:
    thumbnail = _noisy_jpeg(tmp_path / "small.jpg", quality=5)
    path = tmp_path / "000008.jpg"
    data = _noisy_jpeg(path)
    marker = b"\xff\xe2" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = data[:2] + marker + data[2:]
    path.write_bytes(whole)
    assert decode_rgb(path).shape == (64, 80, 3)
    path.write_bytes(whole[:-500])
    with pytest.raises(InputError, match=r"000008\.jpg: is cut short"):
        decode_rgb(path)


def test_bytes_after_the_end_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "000009.jpg"
    expected = decode_rgb(_written(path, _noisy_jpeg(path)))
    trailing = path.read_bytes() + b"trailer \xff\xda trailer"
    assert np.array_equal(decode_rgb(_written(path, trailing)), expected)


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("read", [decode_rgb, photo_size])
@pytest.mark.parametrize(("data", "message"), [(b"", "(is empty|not an image)"), (b"hello" * 50, "not an image")])
def test_what_is_no_photo_is_named(tmp_path: Path, read, data: bytes, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=rf"000003\.jpg: .*{message}.*restore"):
        read(_written(tmp_path / "000003.jpg", data))


@pytest.mark.parametrize("read", [decode_rgb, photo_size])
def test_a_missing_photo_is_named(tmp_path: Path, read) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=r"000004\.jpg: no such photo; restore"):
        read(tmp_path / "000004.jpg")


def test_a_folder_in_place_of_a_photo_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        decode_rgb(tmp_path)


def large(tmp_path: Path, suffix: str = ".jpg", wh: tuple[int, int] = (803, 1201)) -> Path:
    """A photo of soft blobs."""
    small = np.random.default_rng(0).integers(0, 256, (13, 9, 3), dtype=np.uint8)
    path = tmp_path / f"large{suffix}"
    cv2.imwrite(str(path), cv2.resize(small, wh, interpolation=cv2.INTER_CUBIC))
    return path


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_a_reduced_photo_stands_for_whole_blocks_of_pixels(tmp_path: Path, factor: int):
    path, asked = large(tmp_path), []

    def reduction(width, height):
        asked.append((width, height))
        return factor

    found, told = decode_reduced(path, reduction)
    assert (told, asked) == (factor, [(803, 1201)])
    assert found.shape == (-(-1201 // factor), -(-803 // factor), 3)
    whole = decode_rgb(path)[: 1201 // factor * factor, : 803 // factor * factor].astype(float)
    blocks = whole.reshape(1201 // factor, factor, 803 // factor, factor, 3).mean((1, 3))
    gap = np.abs(found[: 1201 // factor, : 803 // factor] - blocks)
    assert gap.mean() < 1.0
    assert gap.max() < 16


def test_only_a_jpeg_is_reduced(tmp_path: Path):
    found, factor = decode_reduced(large(tmp_path, ".png"), lambda *_: 8)
    assert (factor, found.shape) == (1, (1201, 803, 3))


def test_a_photo_that_is_no_image_is_named_before_it_is_reduced(tmp_path: Path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8 no more than a beginning")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        decode_reduced(path, lambda *_: 2)
    with pytest.raises(InputError, match="no such photo"):
        decode_reduced(tmp_path / "none.jpg", lambda *_: 2)
    path.write_bytes(large(tmp_path).read_bytes()[:-3000])
    with pytest.raises(InputError, match="cut short"):
        decode_reduced(path, lambda *_: 2)
