"""Names are found by keys that hold no name, and proven in clear."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customer.domain import name_keys, names
from customer.domain.name_keys import Name, Stage, found_at, of_record, query

WHOLE, START, SOUND, ERROR, FAR = Stage


def name(full="", family="", given="", latin="", aliases=()):
    forms = names.standard(full, family, given)
    return Name(full, family, given, latin, tuple(aliases), forms.han_simplified_name, forms.pinyin_name)


@pytest.mark.parametrize(
    ("stored", "asked", "stage"),
    [
        (name("Jan Novák"), "jan novak", WHOLE),
        (name("Jan Novák"), "NOVÁK Jan", WHOLE),
        (name("Jan Novák"), "novak", START),
        (name("Jan Novák"), "nov j", START),
        (name("Jan Novák"), "ovak", FAR),
        (name("Jan Novák"), "jan svoboda", None),
        (name("Jan Novák"), "nowak", SOUND),
        (name("Jan Novák"), "jan novac", SOUND),
        (name("Jan Novák"), "nvoak", SOUND),  # letters swapped
        (name("Jan Novák"), "jan noak", ERROR),  # a letter lost
        (name("Jan Novák"), "jan noval", ERROR),  # another letter
        (name("Jan Novák"), "janovak", None),
        (name("Jan Novák"), "nova k", START),
        (name("Jan Novák", latin="Yan Novac"), "novac", START),
        (name("Jan Novák", aliases=["Honza Novák"]), "honza", START),
        (name(family="O'Brien", given="Siobhán"), "obrien", START),
        (name("Björn Strømsø"), "stromso bjorn", WHOLE),
        (name("王小明"), "王小明", WHOLE),
        (name("王小明"), "王", START),
        (name("王小明"), "小明", START),
        (name("王小明"), "明", START),
        (name("王小明"), "明小", None),
        (name("王小明"), "wang xiaoming", WHOLE),
        (name("王小明"), "xiaoming wang", WHOLE),
        (name("王小明"), "wang xiao ming", WHOLE),
        (name("王小明"), "wangxiaoming", START),
        (name("王小明"), "wang xi", START),
        (name("王小明"), "Wang Xiaomin", START),
        (name("王小明"), "wang shaoming", SOUND),
        (name("王小明"), "王晓明", SOUND),  # a homophone
        (name("王小明"), "李小明", None),
        (name("單偉"), "shan wei", WHOLE),
        (name("单伟"), "單偉", WHOLE),
        (name("单伟"), "dan wei", None),
        (name("吕布"), "lu bu", WHOLE),
        (name("吕布"), "Lyu Bu", WHOLE),
        (name("吕布"), "lü bu", WHOLE),
        (name(family="王", given="小明"), "王小明", WHOLE),
        (name("欧阳娜娜"), "ouyang", START),
        (name("欧阳娜娜"), "歐陽", START),
        (name("中国工商银行股份有限公司"), "工商银行", START),
        (name("中国工商银行股份有限公司"), "银行工商", None),
        (name("Wang"), "wangx", ERROR),
    ],
)
def test_a_name_is_found_at_its_stage(stored, asked, stage):
    assert found_at(query(asked), stored) == stage


def test_a_query_without_letters_or_with_one_is_empty():
    assert [query(text).is_empty for text in ("", "...", "j", "王", "li")] == [True, True, True, False, False]


def test_usual_names_have_few_keys_and_no_name_has_many():
    assert len(of_record(name("王小明"))) <= 12
    assert len(of_record(name("Jan Novák"))) <= 8
    assert len(of_record(name(" ".join(f"word{chr(97 + i % 26)}{i}" for i in range(300))))) == name_keys.KEYS_OF_A_RECORD_MAX


_words = st.text("abcdefghijklmnoprstuwz", min_size=3, max_size=12)


@settings(max_examples=200)
@given(st.lists(_words, min_size=1, max_size=3, unique=True), st.data())
def test_a_name_is_found_by_itself_by_beginnings_and_with_one_error(words, data):
    stored = name(" ".join(words))
    assert found_at(query(" ".join(reversed(words))), stored) == WHOLE
    starts = [word[: data.draw(st.integers(2, len(word)))] for word in words]
    assert found_at(query(" ".join(starts)), stored) in (WHOLE, START)
    place = data.draw(st.integers(0, len(words[0]) - 1))
    error = words[0][:place] + data.draw(st.sampled_from(["", "x", "e"])) + words[0][place + 1 :]
    # An error that changes how a word sounds by more than one class of letters is too much.
    if (
        len(error) >= 3
        and len(name_keys.sound(error)) > 1
        and name_keys.sound(words[0]) in name_keys._misheard(name_keys.sound(error))
    ):
        assert found_at(query(" ".join([error, *words[1:]])), stored) is not None


@settings(max_examples=200)
@given(st.text(max_size=30), st.text(max_size=30))
def test_no_name_and_no_query_raises(stored, asked):
    found_at(query(asked), name(stored))
