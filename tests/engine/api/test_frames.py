from __future__ import annotations

from engine.api.frames import MULTIPLEXED, RAW, frame, media_type


def test_a_frame_names_its_stream_and_length() -> None:
    assert frame("stdout", b"hello") == b"\x01\0\0\0\0\0\0\x05hello"
    assert frame("stderr", b"") == b"\x02\0\0\0\0\0\0\0"


def test_what_the_stream_is_called() -> None:
    assert media_type(tty=True, version=(1, 47)) == RAW
    assert media_type(tty=False, version=(1, 42)) == MULTIPLEXED
    assert media_type(tty=False, version=(1, 41)) == RAW
