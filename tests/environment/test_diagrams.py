import re
import xml.etree.ElementTree as ET

import pytest

from utils.environment.diagrams import PICTURE, draw_boxes


@pytest.mark.parametrize("arrows", [False, True])
def test_every_box_has_its_text_and_its_share_and_the_picture_a_description(arrows):
    rows = [[("one <b>\ntwo", "blue"), ("three", "", 2.5)], [("four", "none")]]
    picture = ET.fromstring(draw_boxes(rows, 'a "picture"', arrows).data)
    assert picture.get("aria-label") == 'a "picture"'
    lines = [one for one in picture if len(one)]
    assert ["".join(box.itertext()) for line in lines for box in line] == [
        *("one <b>two", "three", "four")
    ]
    shares = [re.match(r"flex:([\d.]+) ", box.get("style"))[1] for line in lines for box in line]
    assert shares == ["1", "2.5", "1"]
    assert [one.text for one in picture if not len(one)] == ["↓"] * arrows


def test_texts_are_large_enough_to_read_on_a_phone():
    assert int(re.search(r"font:(\d+)px", PICTURE)[1]) >= 12
