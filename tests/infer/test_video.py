from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from datakit.errors import FormatError, LayoutError, UsageError
from datakit.infer.video import Selection, natural_key, open_source
from tests.infer.videos import picture, read_number, rotate_in_header, vary_rate, write_video
from tests.tiny import write_tiny


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "plain.mp4")


def numbers(source, *window):
    return [read_number(frame) for frame in source.frames(*window)]


def test_a_video_gives_every_frame_with_its_time(video):
    source = open_source(video)
    info = source.info
    assert (info.kind, info.size, info.num_frames, info.rotation_deg) == ("video", (64, 48), 12, 0)
    np.testing.assert_allclose(info.times_s, np.arange(12) / 10, atol=1e-9)
    assert numbers(source) == list(range(12)) and numbers(source, 5, 8) == [5, 6, 7]
    red = next(iter(source.frames()))[8, 50]
    assert red[0] > 180 and red[2] < 80, "RGB, not BGR"
    assert info.files[0].size == video.stat().st_size and info.notes == ()


def test_selections(video):
    assert numbers(open_source(video, Selection(stride=5))) == [0, 5, 10]
    assert numbers(open_source(video, Selection(fps=5))) == [0, 2, 4, 6, 8, 10]
    assert numbers(open_source(video, Selection(fps=4))) == [0, 3, 5, 8, 10]
    assert numbers(open_source(video, Selection(start_s=0.3, end_s=0.7, max_frames=3))) == [3, 4, 5]
    thinned = open_source(video, Selection(stride=4, start_s=0.2))
    assert thinned.info.numbers.tolist() == [2, 6, 10] and numbers(thinned, 1) == [6, 10]
    with pytest.raises(UsageError, match="No frame is left"):
        open_source(video, Selection(start_s=99))
    with pytest.raises(UsageError, match="by stride or by rate"):
        Selection(stride=2, fps=5)
    with pytest.raises(UsageError, match="fps"):
        Selection(fps=-1)


def test_a_higher_rate_than_the_videos_keeps_all():
    times = np.round(np.arange(30) / 29.97, 3)  # a clock in milliseconds
    assert Selection(fps=29.97).choose(times).tolist() == list(range(30))
    assert Selection(fps=60).choose(times).tolist() == list(range(30))


def test_rotation_in_the_header_is_applied(tmp_path):
    path = write_video(tmp_path / "phone.mp4", 3)
    rotate_in_header(path)
    source = open_source(path)
    frame = next(iter(source.frames()))
    assert source.info.size == (48, 64) and frame.shape == (64, 48, 3)
    assert source.info.rotation_deg in (90, 270)
    # Turned clockwise the red quarter of the top right comes to the bottom right.
    assert frame[50, 40, 0] > 180 > 80 > frame[50, 40, 2] and abs(int(frame[8, 40, 0]) - 40) < 20


def test_variable_rate_keeps_the_true_times(tmp_path):
    path = write_video(tmp_path / "vary.mp4", 5)
    steady = open_source(path).info.times_s
    tick = round((steady[1] - steady[0]) * 10240)  # OpenCV's time base at 10 frames a second
    vary_rate(
        path, [tick // 2, 2 * tick, tick, tick // 2, tick]
    )  # as long as before: the edit list cuts at that
    times = open_source(path).info.times_s
    np.testing.assert_allclose(np.diff(times), [0.05, 0.2, 0.1, 0.05], atol=2e-3)
    assert open_source(path, Selection(fps=10)).info.numbers.tolist() == [0, 2, 3, 4]


def test_time_stamps_that_do_not_increase_are_replaced_and_said(tmp_path):
    path = write_video(tmp_path / "flat.mp4", 4)
    vary_rate(path, [0, 0, 0, 0])
    info = open_source(path).info
    assert (np.diff(info.times_s) > 0).all() and "do not increase" in info.notes[0]


def test_broken_videos_are_named(video, tmp_path):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[:900])  # without its index
    with pytest.raises(FormatError, match="cannot be opened"):
        open_source(cut)
    cut.write_bytes(b"")
    with pytest.raises(FormatError, match="empty"):
        open_source(cut)
    cut.write_bytes(b"#EXTM3U\n#EXTINF:10,\nhttp://example.com/a.ts\n")
    with pytest.raises(FormatError, match="text file"):
        open_source(cut)
    cut.write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(FormatError):
        open_source(cut)
    with pytest.raises(LayoutError, match="No such file"):
        open_source(tmp_path / "nothing.mp4")


def test_a_headers_count_is_not_believed(tmp_path):
    path = write_video(tmp_path / "claims.mp4", 4)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    keep = start + (end - start) // 2
    data[keep:end] = bytes(end - keep)  # the later frames are zeros
    path.write_bytes(data)
    info = open_source(path).info
    assert info.num_all == len(list(open_source(path).frames())) == info.num_frames


def write_images(folder, names, size=(32, 24)):
    folder.mkdir()
    for number, name in enumerate(names):
        rgb = picture(number, size)
        cv2.imwrite(str(folder / name), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return folder


def test_images_come_in_natural_order_and_pass_through(tmp_path):
    folder = write_images(tmp_path / "images", ["f1.png", "f2.png", "f10.png"])
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"")
    source = open_source(folder, image_rate=10)
    assert source.info.names == ("f1", "f2", "f10") and numbers(source) == [0, 1, 2]
    np.testing.assert_allclose(source.info.times_s, [0, 0.1, 0.2])
    assert [data for _, data in source.encoded()] == [
        (folder / name).read_bytes() for name in ("f1.png", "f2.png", "f10.png")
    ]
    assert natural_key("a2") < natural_key("a10")


def test_images_that_are_not_plain_become_upright_colour(tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    Image.fromarray(picture(0, (24, 32))).save(folder / "a.jpg", exif=exif, quality=95)
    Image.fromarray(picture(1, (32, 24))[..., 0]).save(folder / "b.png")
    Image.fromarray(picture(2, (32, 24))).quantize(8).save(folder / "c.png")
    source = open_source(folder)
    frames = list(source.frames())
    assert source.info.size == (32, 24) and source.encoded() is None
    assert [frame.shape for frame in frames] == [(24, 32, 3)] * 3
    assert (
        frames[0][20, 28, 0] > 180 and abs(int(frames[1][20, 4, 2]) - 52) < 3 and read_number(frames[2]) == 2
    )


def test_bad_folders_are_named(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(LayoutError, match="No image"):
        open_source(tmp_path / "none")
    folder = write_images(tmp_path / "sizes", ["a.png", "b.png"])
    cv2.imwrite(str(folder / "b.png"), np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(FormatError, match=r"differ in size[\s\S]*b\.png"):
        open_source(folder)
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:-20])
    with pytest.raises(FormatError, match="truncated"):
        open_source(folder)


def test_a_scene_is_read_through_its_view(tmp_path):
    path = write_tiny(tmp_path / "tiny.h5")
    source = open_source(path, Selection(stride=2))
    assert (source.info.kind, source.info.size, source.info.licence) == ("scene", (40, 30), "CC0-1.0")
    np.testing.assert_allclose(source.info.times_s, [0, 0.2])
    assert [frame.shape for frame in source.frames()] == [(30, 40, 3)] * 2
    assert [codec for codec, _ in source.encoded()] == ["png", "png"]
    with pytest.raises(UsageError, match="No such view"):
        open_source(path, view="left")


def test_views_belong_to_scenes(video):
    with pytest.raises(UsageError, match="Only a scene"):
        open_source(video, view="camera")


def test_identity_sees_another_file_and_another_choice(video, tmp_path):
    same = tmp_path / "plain.mp4"
    same.write_bytes(video.read_bytes())
    assert open_source(same).info.identity() == open_source(video).info.identity()
    other = write_video(tmp_path / "other.mp4", 11)
    ids = [open_source(video).info, open_source(video, Selection(stride=2)).info, open_source(other).info]
    assert len({str(info.identity()) for info in ids}) == 3
