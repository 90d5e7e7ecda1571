import io

from recaption.common.progress import Progress, format_seconds


def test_a_log_gets_rate_and_time_left() -> None:
    log = io.StringIO()
    with Progress(10, "images", label="shard 3", interval=0.0, stream=log) as progress:
        progress.advance(4)
    first, last = log.getvalue().splitlines()
    assert first.startswith("shard 3: 4/10 images, ")
    assert "images/s" in first
    assert first.endswith("left")
    assert last.startswith("shard 3: 4/10 images")


def test_seconds_are_readable() -> None:
    assert [format_seconds(s) for s in (9, 75, 3_700)] == ["9s", "1m15s", "1h01m"]
