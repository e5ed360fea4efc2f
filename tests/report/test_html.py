"""Elements escape what is text and keep what is HTML."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from diffalign.report.html import Markup, el, join

NASTY = ["<script>alert(1)</script>", 'a" onload="x', "a' b & c", "</td><img src=x>", "&lt;", "日本 <é>"]


class Reader(HTMLParser):
    """Collects tags and text as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


@pytest.mark.parametrize("text", NASTY)
def test_text_and_attributes_come_back_as_given(text):
    seen = read(el("p", text, title=text))
    assert seen.text == text
    assert seen.tags == [("p", {"title": text})]


@pytest.mark.parametrize("text", NASTY)
def test_joined_text_makes_no_tags(text):
    seen = read(join("before ", text, None))
    assert (seen.text, seen.tags) == (f"before {text}", [])


def test_elements_nest_without_double_escaping():
    assert el("b", el("i", "a & b")) == "<b><i>a &amp; b</i></b>"
    assert el("b", Markup("&amp;")) == "<b>&amp;</b>"


def test_attribute_names_and_missing_values():
    assert el("rect", class_="a", stroke_width=2, viewBox="0 0 1 1", id=None) == (
        '<rect class="a" stroke-width="2" viewBox="0 0 1 1"></rect>'
    )


def test_void_elements_have_no_end_tag():
    assert el("img", src="x") == '<img src="x">'


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (0.125, "0.12"), (10.5, "10.5"), (100, "100"), (0.0, "0")])
def test_coordinates_are_short(value, text):
    assert el("g", x=value) == f'<g x="{text}"></g>'
