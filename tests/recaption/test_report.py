import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recaption.common.config import UserError
from recaption.report import ReportConfig, write_report
from recaption.work.claims import ClaimConfig, Claims
from tests.recaption.shard_files import Members, copy_run, sample, write_tar
from tests.recaption.test_runner import caption

EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Elements by name, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    evil: Members = sample(f"../../{EVIL}", 1, [f"A dog {EVIL} barks", "It is loud"])
    evil[1] = (evil[1][0], f'alt "{EVIL}'.encode())
    long = sample("long", 2, ["one two three four five six seven eight nine ten eleven five six"])
    many = [part for n in range(12) for part in sample(f"k{n}", n)]
    members = [*evil, *long, *many, *sample("hm", 3, ["Hm"]), ("bad.jpg", b"no picture")]
    write_tar(folder / "in/s0.tar", members)
    caption(folder / "in", folder / "out")
    write_tar(folder / "in/s1.tar", many)  # not begun yet
    return folder


@pytest.fixture
def tables(made: Path, tmp_path: Path) -> Path:
    return copy_run(made, tmp_path)


def test_the_report_shows_captions_beside_images_and_runs_nothing(tables: Path) -> None:
    before = set(tables.parent.rglob("*"))
    with Claims(tables / "work", ClaimConfig()) as claims:  # while a worker is at it
        assert claims.take("s1") is not None
        summary = write_report(ReportConfig(str(tables), num_samples=20, num_examples=2))
    assert summary.num_captions == 16
    assert set(tables.parent.rglob("*")) - before == {tables / "report.html"}
    text = (tables / "report.html").read_text()
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "svg")]
    sources = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert summary.num_images_shown == len(sources) >= 15
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not re.search(r'(href|src)="(?!data:)', text)
    assert f"A dog {EVIL} barks" in page.text and f'alt "{EVIL}' in page.text
    reasons = ("unsupported-format", "too-short: 1 words")
    for needed in (*reasons, "Most repeated words", "words a caption"):
        assert needed in page.text
    assert "of about" in page.text and "1 in hand" in page.text


def test_the_same_seed_draws_the_same(tables: Path) -> None:
    pages = []
    for seed in (0, 0, 1):
        write_report(ReportConfig(str(tables), num_samples=3, seed=seed))
        shown = (tables / "report.html").read_text().split("Lengths</h2>")[0]
        pages.append(re.findall(r"base64,[^\"]+", shown))
    assert pages[0] == pages[1] != pages[2]


def test_nothing_finished_is_said(tables: Path) -> None:
    (tables / "s0.stats.json").unlink()
    with pytest.raises(UserError, match="no finished table"):
        write_report(ReportConfig(str(tables)))
