import re
import xml.etree.ElementTree as ET

import pytest

from utils.environment.diagrams import WIDTH, draw_boxes


@pytest.mark.parametrize("arrows", ["", "down", "right"])
def test_every_box_stands_inside_the_picture_with_its_text_and_a_description(arrows):
    rows = [[("one <b>\ntwo", "blue"), ("three", "", 2.5)], [("four", "none")]]
    svg = ET.fromstring(draw_boxes(rows, 'a "picture"', arrows).data)
    assert svg.get("aria-label") == 'a "picture"'
    height = float(svg.get("viewBox").split()[3])
    for box in svg.iter("rect"):
        x, y, width, tall = (float(box.get(name)) for name in ("x", "y", "width", "height"))
        assert x >= 0 and y >= 0 and x + width <= WIDTH and y + tall <= height
    assert [t.text for t in svg.iter("text")] == ["one <b>", "two", "three", "four"]
    wide = [float(box.get("width")) for box in svg.iter("rect")]
    assert wide[1] == pytest.approx(2.5 * wide[0], rel=0.01)
    assert len(list(svg.iter("line"))) == {"": 0, "down": 1, "right": 1}[arrows]


def test_texts_are_large_enough_to_read_on_a_phone():
    assert int(re.search(r'font-size="(\d+)"', draw_boxes([[("x", "")]], "x").data)[1]) >= 12
