"""What a notebook shows of a result, and its table: whatever the names, nothing but text."""

import sys
from html.parser import HTMLParser

import pytest

from tests.report.conftest import labelled
from vadis.errors import VadisError
from vadis.results import MAX_BARS, Piece, VideoResult

HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(1)>\"'&lt;\u202e"


class Tags(HTMLParser):
    """The tags and texts of a document."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag != "rect" or self.get_starttag_text().endswith(">"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in self.open

    def handle_data(self, data):
        self.text += data


def test_a_result_shows_its_labels_and_timeline():
    shown = Tags(labelled("a.mp4", [("archery", 0.9), ("bowling", 0.6)])._repr_html_())
    assert shown.tags.count("rect") == 2
    assert "0.0–2.0 s: archery 90%" in shown.text
    assert "a.mp4" in shown.text and "2.0 s" in shown.text


@pytest.mark.parametrize(
    "result",
    [
        labelled(HOSTILE, [(HOSTILE, 0.9)]),
        VideoResult(HOSTILE, "error", error_code="empty_file", error_message=HOSTILE),
        VideoResult("a\udcff.mp4", "ok"),
        VideoResult("a.mp4", "ok", timeline=(Piece(0, 0, "a", 1.0), Piece(0, 1, "no clear label", 0.9))),
    ],
)
def test_names_are_text(result):
    shown = Tags(result._repr_html_())
    assert not {"script", "img"} & set(shown.tags)
    assert (HOSTILE in shown.text) == (result.path == HOSTILE)


def test_a_long_timeline_has_a_bounded_number_of_bars():
    shown = Tags(labelled("a.mp4", [("archery", 0.9), ("bowling", 0.6)] * 5_000)._repr_html_())
    assert 300 < shown.tags.count("rect") <= MAX_BARS


@pytest.mark.integration("pandas")  # which comes with ray[data]
def test_the_table_has_a_row_for_each_segment_and_label():
    table = labelled("a.mp4", [("archery", 0.9), ("bowling", 0.6)]).to_pandas()
    assert list(table.columns) == ["start", "end", "rank", "label", "score"]
    assert table[table["rank"] == 1]["label"].tolist() == ["archery", "bowling"]
    assert table.iloc[0].to_dict() == {"start": 0.0, "end": 2.0, "rank": 1, "label": "archery", "score": 0.9}
    assert len(VideoResult("a.mp4", "ok").to_pandas()) == 0


def test_without_pandas_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(VadisError, match="pandas") as error:
        labelled("a.mp4", [("archery", 0.9)]).to_pandas()
    assert error.value.hint == "pip install pandas"
