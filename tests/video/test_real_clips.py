"""What each of the real clips must give; where a clip is awkward, why."""

import csv
from typing import NamedTuple

import pytest

from vadis.errors import VideoError
from vadis.video.reader import open_video
from vadis.video.sources import find_videos


class Clip(NamedTuple):
    num_frames: int  # of the grid
    size: tuple[int, int]  # (width, height) of these
    frames_decoded: int
    frames_declared: int | None
    rotation: int = 0
    flags: str = ""


# fmt: off
# ruff: noqa: E501
CLIPS = {
    "action/demo.mp4": Clip(250, (427, 256), 280, 280),  # 340 × 256 with pixels of 64:51: 16:9 as shown
    "action/demo_skeleton.mp4": Clip(64, (455, 256), 72, 72),
    "action/test_video_structuralize.mp4": Clip(250, (454, 256), 300, 300),
    "action/part_0.mp4": Clip(28, (455, 256), 32, 32),  # the last frame after a gap
    "action/test.mp4": Clip(250, (455, 256), 300, 300),
    "action/v_GGSY1Qvo990.mp4": Clip(452, (341, 256), 355, 355),  # 18.09 s: the last frame outlasts the header's 18.04
    "action/R6llTwEh07w.mp4": Clip(253, (340, 256), 303, 303),
    "action/SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi": Clip(62, (341, 256), 74, 75, flags="synthetic_timestamps"),  # B-frames packed: one packet more than frames, timestamps out of order
    "action/TrumanShow_wave_f_nm_np1_fr_med_26.avi": Clip(40, (461, 256), 48, 49, flags="synthetic_timestamps"),
    "action/v_SoccerJuggling_g23_c01.avi": Clip(200, (341, 256), 240, 240),
    "action/billiards.0001.mp4": Clip(8, (341, 256), 9, 9),  # 0.3 s of pictures beside 1 s of sound
    "action/v_ApplyEyeMakeup_g01_c01.avi": Clip(164, (341, 256), 164, 164, flags="synthetic_timestamps"),
    "action/v_BaseballPitch_g01_c01.avi": Clip(89, (341, 256), 107, 107),
    "action/example.avi": Clip(131, (341, 256), 131, 131),
    "action/baseball.mp4": Clip(139, (455, 256), 167, 167),  # 183 coded, 16 hidden by an edit list
    "action/hitting_baseball.mp4": Clip(250, (341, 256), 300, 300),
    "action/yoga.mp4": Clip(250, (455, 256), 300, 300),
    "action/playing_guitar.mp4": Clip(250, (375, 256), 300, 300),
    "action/sample_demo_1.mp4": Clip(243, (455, 256), 243, 243),
    "action/3c0dffd0-e38e-4643-bc48-d513943dc20b_012_014.mp4": Clip(50, (341, 256), 60, 60),
    "action/04_coffee.mp4": Clip(239, (455, 256), 287, 287),
    "action/(HQ)_Rock_Climbing_-_Free_Solo_Speed_Climb_-_Dan_Osman_climb_f_cm_np1_le_med_2.avi": Clip(202, (341, 256), 242, 243, flags="synthetic_timestamps"),
    "action/6arrowswithin30seconds_shoot_bow_f_nm_np1_fr_med_3.avi": Clip(68, (341, 256), 81, 82, flags="synthetic_timestamps"),
    "action/BaseballHitinSlowMotion_swing_baseball_f_nm_np1_fr_bad_0.avi": Clip(117, (452, 256), 140, 141, flags="synthetic_timestamps"),
    "action/Golf_Tips_-_Hit_The_Driver_300+_Yards!!!_golf_f_nm_np1_fr_med_0.avi": Clip(74, (341, 256), 89, 90, flags="synthetic_timestamps"),
    "action/000001_mpiinew_test.mp4": Clip(4, (455, 256), 5, 5),
    "action/test.avi": Clip(127, (341, 256), 127, 127, flags="synthetic_timestamps"),
    "action/eat.mkv": Clip(39, (341, 256), 47, None),
    "action/bikes.mp4": Clip(250, (602, 256), 250, 250),
    "action/v_CricketShot_g04_c01_rgb.gif": Clip(79, (256, 256), 79, None),
    "action/v_CricketShot_g04_c01_flow.gif": Clip(79, (256, 256), 79, None),
    "action/nasa_13013.mp4": Clip(325, (455, 256), 390, 390, flags="several_video_streams"),  # the larger of two streams
    "awkward/corrupted.mp4": Clip(125, (455, 256), 49, 50, flags="damaged_packets damaged_frames"),  # packet 31 is damaged; the frames after it are patched
    "awkward/video_0.mov": Clip(3, (454, 256), 3, 3),
    "awkward/video_180.mov": Clip(3, (454, 256), 3, 3, rotation=-180),
    "awkward/av1_video.mkv": Clip(125, (455, 256), 125, None),
    "awkward/bt601_full_range.mp4": Clip(50, (341, 256), 60, 60),
    "awkward/h265_10bits.mp4": Clip(25, (256, 256), 30, 30),
    "awkward/nasa_13013_rotated.mp4": Clip(14, (256, 455), 17, 17, rotation=90),
    "awkward/testsrc2_vp8.webm": Clip(25, (455, 256), 30, None),
    "awkward/testsrc2_odd_height_and_width_vp9.mp4": Clip(25, (341, 256), 25, 25),
    "awkward/testsrc2_odd_height_and_width_mpeg2.mp4": Clip(10, (382, 256), 10, 10),
    "awkward/testsrc2_444_12bit_hevc.mp4": Clip(25, (341, 256), 25, 25),
    "awkward/animated.gif": Clip(10, (341, 256), 4, None),
    "awkward/transparent.gif": Clip(1, (341, 256), 1, None),  # a still
    "awkward/test_non_zero_start.mp4": Clip(10, (455, 256), 12, 12),
    "awkward/testsrc2_mpeg4.mp4": Clip(1, (256, 256), 1, 1),
    "awkward/nasa_13013.mp4.audio.mp3": "no_video_stream",
    "awkward/result.webm": "empty_file",
    "awkward/video_with_failing_audio.mp4": Clip(280, (455, 256), 280, 280),  # sound is never decoded
    "awkward/transparent.webm": Clip(125, (256, 256), 150, None),
    "awkward/realshort.mp4": Clip(30, (341, 256), 36, 36),
    "awkward/newtonscradle.gif": Clip(21, (341, 256), 36, None),  # 0.05 s, then 0.02 s per frame
    "awkward/sample_portrait.mp4": Clip(25, (256, 384), 30, 30),  # lies on its side, and no metadata says so
    "awkward/sample_video_only.mp4": Clip(25, (384, 256), 30, 30),
    "awkward/sample_mdat_too_long.mp4": Clip(25, (384, 256), 30, 30),  # states more bytes than there are, but all frames are there
    "awkward/sample_empty_track.mp4": Clip(25, (384, 256), 30, 30, flags="several_video_streams"),  # a second video track without frames
    "awkward/sample_av1.mp4": Clip(25, (384, 256), 30, 30),
    "awkward/bear-vp9-odd-dimensions.webm": Clip(25, (341, 256), 30, None),
    "awkward/roadtrip-vp92-10bit.webm": Clip(75, (454, 256), 72, None),  # 80 packets, of which 8 are never shown
    "awkward/sample_android_slow_motion.mp4": Clip(13, (455, 256), 7, 7),  # 7 frames, the first of which lasts 0.33 s
    "awkward/sample_fragmented.mp4": Clip(25, (384, 256), 30, None),  # states no count
    "awkward/bbb_176x144_128kbps_15fps_h263.3gp": Clip(25, (313, 256), 15, 15),
    "awkward/sample.avi": Clip(102, (614, 256), 96, 98),  # 98 slots, 2 of them dropped when encoding
    "awkward/bbb_800x640_768kbps_30fps_avc_2b_firstpts_10_sec.mp4": Clip(100, (455, 256), 120, 120),  # starts at 10 s
    "awkward/edit_list_positive_shift.mp4": Clip(225, (455, 256), 270, 270),  # starts at 1 s; its sound at 0
    "awkward/h265_with_metadata_track.mp4": Clip(3, (256, 455), 3, 3, rotation=-90),
    "awkward/sample_shorter_audio.mp4": Clip(30, (341, 256), 72, 72),
    "awkward/sample_h262_mpeg_audio.ts": Clip(3, (385, 256), 3, None),
    "awkward/sample_h265.ts": Clip(25, (455, 256), 30, None),
    "awkward/portrait_4k60.mp4": Clip(7, (256, 455), 18, 18, rotation=-90),
    "awkward/video_rotation_90.mp4": Clip(1, (256, 427), 1, 1, rotation=-90),
    "awkward/minimal.mp4": Clip(1, (341, 256), 1, 1),
    "awkward/test_video_66x50.mov": Clip(34, (338, 256), 82, 82),  # 87 coded, 5 hidden by an edit list
    "awkward/mountain.0001.h265": Clip(1, (455, 256), 1, None, flags="synthetic_timestamps"),  # a bare stream
}
# fmt: on
"""By file; a word is the code of the error."""

PARTIAL = {"awkward/corrupted.mp4"}
"""All others that can be read are whole."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, clip in CLIPS.items() if isinstance(clip, Clip)])
def test_a_clip_that_can_be_read(shared, name):
    with open_video(shared / "videos" / name) as video:
        seconds = [frame.seconds for frame in video if frame.pixels.shape == (*video.size[::-1], 3)]
    facts = video.facts
    assert seconds == [i / 25 for i in range(CLIPS[name].num_frames)]
    assert CLIPS[name] == (
        *(facts.num_frames, video.size, facts.frames_decoded, facts.frames_declared),
        *(facts.rotation, " ".join(facts.flags)),
    )
    assert facts.status == ("partial" if name in PARTIAL else "ok")


@pytest.mark.parametrize("name", [name for name, clip in CLIPS.items() if isinstance(clip, str)])
def test_a_clip_that_cannot_be_read(shared, name):
    with pytest.raises(VideoError) as error, open_video(shared / "videos" / name):
        pass
    assert error.value.code == CLIPS[name]


def test_the_table_is_complete(shared):
    with open(shared / "videos" / "manifest.csv", newline="") as file:
        assert {row["file"] for row in csv.DictReader(file)} == set(CLIPS)


def test_a_walk_finds_every_clip_once(shared):
    folder = shared / "videos"
    found = find_videos([folder])
    assert sorted(source.path for source in found) == sorted(
        str(folder / name) for name in CLIPS if name[-4:] != ".mp3"
    )
    assert found.num_ignored == 3  # README.md, manifest.csv and sound
