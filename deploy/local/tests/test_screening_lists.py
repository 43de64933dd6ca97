"""Files of screening lists: what is wrong is named, and nothing is loaded."""

import pytest

from concord_local.screening_lists import BadRow, entries

HEAD = "entry_id,names,birth_dates,country_codes,organisation\n"


def test_a_file_as_documented(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text(HEAD + "QDi.001,Wang Wei|王伟,1962-03-01|1963,KP,false\nX2,Golden Dragon,,,true\n", encoding="utf-8-sig")
    assert list(entries(file)) == [
        {
            "entryId": "QDi.001", "names": ["Wang Wei", "王伟"], "birthDates": ["1962-03-01", "1963"], "countryCodes": ["KP"],
            "organisation": False,
        },
        {"entryId": "X2", "names": ["Golden Dragon"], "birthDates": [], "countryCodes": [], "organisation": True},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id,name\n1,a\n", "there is no entry_id, names"),
        (HEAD + ",Wang Wei,,,\n", "row 2, entry_id"),
        (HEAD + "1,,,,\n", "row 2, names"),
        (HEAD + "1,a,,,\n2,b,62,,\n", "row 3, birth_dates"),
        (HEAD + "1,a,,Iran,\n", "row 2, country_codes"),
        (HEAD + "1,a,,,\n1,b,,,\n", "row 3, entry_id: stands twice"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, said):
    file = tmp_path / "list.csv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(BadRow, match=said):
        list(entries(file))


def test_another_encoding_is_named(tmp_path):
    file = tmp_path / "list.csv"
    file.write_bytes(HEAD.encode() + "1,王伟,,,\n".encode("gb18030"))
    with pytest.raises(BadRow, match="UTF-8"):
        list(entries(file))
