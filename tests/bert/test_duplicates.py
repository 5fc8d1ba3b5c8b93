import itertools
import json
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from bert import duplicates
from bert.duplicates import Dropped, SignatureFiles, Signer
from tests import graphs
from training.command import UserError

pytestmark = graphs.ON_TENSORFLOW_2

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

POSTING = (
    "高级数据分析师（上海）\n岗位职责：负责公司核心业务的数据分析工作，建立并维护业务指标体系，定期输出经营分析报告；"
    "深入理解业务流程，通过数据发现问题，提出可落地的优化建议并推动实施；与产品、运营和技术团队紧密合作，"
    "设计实验方案并评估效果；参与数据仓库建设，保证数据口径一致、准确可靠。\n"
    "任职要求：统计学、数学、计算机等相关专业本科及以上学历，"
    "三年以上互联网行业数据分析经验；熟练使用结构化查询语言和常见的脚本语言，了解机器学习基本方法；"
    "逻辑清晰，沟通能力强，有责任心，能承受一定的工作压力。\n薪资：月薪15000元至25000元，五险一金，带薪年假。\n"
    "工作地点：上海市浦东新区。发布日期：2021年3月15日。")
TEMPLATE = (
    "招聘启事\n我公司因业务发展需要，现诚聘%s。\n岗位职责：%s\n任职要求：%s\n"
    "薪资面议，五险一金，双休。有意者请将简历发送至公司邮箱。")
CONTENTS = [
    ("货车司机若干名", "驾驶厢式货车往返仓库与门店，按时装卸货物，做好车辆日常保养和出车记录，遇到故障及时上报车队调度",
     "持有B2以上驾照，驾龄五年以上，无重大事故记录，熟悉本市道路，身体健康，能吃苦耐劳，服从夜间出车安排"),
    ("幼儿园教师", "组织三到六岁儿童的游戏和教学活动，观察并记录每个孩子的成长，布置教室环境，与家长保持良好的沟通",
     "学前教育专业大专毕业，有教师资格证书，普通话二级甲等，会弹钢琴或擅长绘画舞蹈，喜欢孩子，性格开朗耐心"),
    ("嵌入式软件工程师",
     "编写单片机固件和设备驱动程序，调试硬件接口，配合测试部门定位缺陷，撰写设计文档，参加代码评审会议",
     "电子信息类本科学历，精通C语言，了解实时操作系统和常用总线协议，会使用示波器，英语能够阅读芯片手册"),
]


# ---- helpers

@pytest.fixture
def find(tmp_path):
    """A function: kind, signatures [N, W], and what else may be chosen -> sorted list of the dropped places."""
    numbers = itertools.count()

    def run(kind, signatures, places=None, threshold=0.8, order=None, batch=50):
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        places = np.arange(len(signatures), dtype=np.uint64) if places is None else np.asarray(places, np.uint64)
        order = np.arange(len(signatures)) if order is None else order
        files = SignatureFiles(str(folder), kind, threshold)
        for start in range(0, len(order), batch):
            own = order[start:start + batch]
            files.add(places[own], signatures[own])
        found = Dropped(files.duplicates())
        assert found.contains(places).sum() == len(found)
        dropped = sorted(places[found.contains(places)].tolist())
        shutil.rmtree(str(folder))
        return dropped

    return run


def dropped_texts(find, kind, texts, threshold=0.8):
    return find(kind, Signer(kind).signatures(texts), threshold=threshold)


def by_the_rule(kind, signatures, places, threshold):
    """What `SignatureFiles.duplicates` promises, document by document."""
    bands = duplicates.BANDS[kind]
    sketches = np.ascontiguousarray(signatures[:, bands:]).view(np.uint8)
    need = 1.0 if kind == "exact" else threshold
    dropped = set()
    for band in range(bands):
        leaders = {}
        for row in np.argsort(places).tolist():
            if row in dropped:
                continue
            own = leaders.setdefault(int(signatures[row, band]), [])
            equal = [np.mean(sketches[row] == sketches[leader]) for leader in own[:duplicates.MAX_LEADERS]]
            # The share of equal bytes, less those that are equal by chance.
            if any((share - 1 / 256) / (1 - 1 / 256) >= need - 1e-9 for share in equal):
                dropped.add(row)
            else:
                own.append(row)
    return sorted(int(places[row]) for row in dropped)


def made_up(kind, count, values, seed, changed=0.3):
    """Signatures with `values` different hashes a band, whose sketches differ from a few patterns in up to a share of
    their bytes."""
    rng = np.random.RandomState(seed)
    bands, words = duplicates.BANDS[kind], duplicates.WORDS[kind]
    patterns = rng.randint(0, 256, (4, 8 * (words - bands))).astype(np.uint8)
    sketches = patterns[rng.randint(0, 4, count)]
    for sketch in sketches:
        places = rng.permutation(len(sketch))[:rng.randint(0, int(changed * len(sketch)) + 1)]
        sketch[places] = rng.randint(0, 256, len(places))
    hashes = rng.randint(0, 2 ** 62, (bands, values)).astype(np.uint64)
    own = hashes[np.arange(bands), rng.randint(0, values, (count, bands))]
    return np.concatenate([own, sketches.view(np.uint64)], axis=1)


def letters(rng, count):
    return "".join(chr(0x4E00 + rng.randrange(5000)) for _ in range(count))


def jaccard(left, right):
    left, right = ({text[start:start + 5] for start in range(len(text) - 4)} for text in (left, right))
    return len(left & right) / len(left | right)


# ---- what is a duplicate: exact

def test_other_white_space_is_still_the_same_text_and_the_earliest_stays(find):
    texts = ["甲 乙\n丙", "别的", "甲乙丙", " 甲\u3000乙\t丙 ", "甲乙丙。"]
    assert dropped_texts(find, "exact", texts) == [2, 3]


@given(strategies.lists(strategies.text("ab \n", max_size=4), max_size=30))
@settings(max_examples=60, deadline=None)
def test_exact_drops_what_python_finds_equal(tmp_path_factory, texts):
    plain = ["".join(text.split()) for text in texts]
    files = SignatureFiles(str(tmp_path_factory.mktemp("exact")), "exact")
    files.add(np.arange(len(texts), dtype=np.uint64), Signer("exact").signatures(texts))
    dropped = Dropped(files.duplicates()).contains(np.arange(len(texts), dtype=np.uint64))
    assert dropped.tolist() == [text in plain[:place] for place, text in enumerate(plain)]


def test_half_a_hash_in_common_is_not_an_exact_match(find):
    signatures = np.array([[5, 1], [5, 2], [6, 1], [5, 2 + (1 << 63)]], np.uint64)
    assert find("exact", signatures) == []


def test_the_threshold_is_for_near_duplicates_only(find):
    assert find("exact", np.array([[5, 1], [5, 2]], np.uint64), threshold=0.1) == []


# ---- what is a duplicate: near

def test_a_job_posting_with_another_salary_and_date_is_found(find):
    again = POSTING.replace("15000元至25000", "18000元至30000").replace("2021年3月15日", "2021年11月2日")
    assert 250 < len(POSTING) < 350 and again != POSTING
    assert dropped_texts(find, "near", [POSTING, again]) == [1]
    assert dropped_texts(find, "exact", [POSTING, again]) == []


@pytest.mark.parametrize("text, again", [
    (POSTING, POSTING.replace("，", ", ").replace("\n", "").replace("。", ".")),
    ("Data analysts with SQL and Python wanted", "DATA ANALYSTS\nwith sql and python WANTED!"),
], ids=["Chinese", "English"])
def test_case_punctuation_and_white_space_do_not_matter_to_near(find, text, again):
    assert dropped_texts(find, "near", [text, again], threshold=1.0) == [1]


def test_a_template_filled_with_other_contents_stays(find):
    texts = [TEMPLATE % content for content in CONTENTS]
    assert 0.1 < max(jaccard(*pair) for pair in itertools.combinations(texts, 2)) < 0.6
    assert dropped_texts(find, "near", texts) == []


def test_postings_of_one_company_with_other_duties_stay(find):
    start, end = POSTING.index("岗位职责"), POSTING.index("任职要求")
    other = POSTING[:start] + CONTENTS[0][1] + CONTENTS[1][1] + POSTING[end:]
    assert 0.4 < jaccard(POSTING, other) < 0.7
    assert dropped_texts(find, "near", [POSTING, other]) == []


@pytest.mark.parametrize("kind", ["exact", "near"])
def test_different_texts_all_stay(find, kind):
    rng = random.Random(3)
    assert dropped_texts(find, kind, [letters(rng, rng.randrange(1, 400)) for _ in range(500)]) == []


@pytest.mark.parametrize("kind", ["exact", "near"])
def test_short_texts_match_only_when_they_are_the_same(find, kind):
    texts = ["", "很好", "很好！", "很 好", "好", "！！", "？？", "！！",
             "九个字的一句短评啊", "九个字的一句短评啊。", ""]
    assert dropped_texts(find, kind, texts) == [3, 7, 10]


def test_no_two_of_many_short_texts_share_a_signature():
    # Were 32 bits all there is of each, about 10 pairs of 300,000 would.
    texts = [str(number) for number in range(300000)]
    shingles = np.array(duplicates._shingles(texts))
    assert len(np.unique(shingles, axis=0)) == len(texts)
    assert shingles.max() < 2 ** 32


def test_one_letter_more_in_a_text_of_usual_length_is_found(find):
    text = letters(random.Random(1), 40)
    assert dropped_texts(find, "near", [text, text + "啊"]) == [1]


def test_pairs_are_found_by_their_true_similarity(find):
    """High ones all, low ones none, against the sets of shingles."""
    rng = random.Random(5)
    texts, similarity = [], []
    for _ in range(200):
        text, keep = letters(rng, 200), rng.randrange(100, 200)
        texts += [text, text[:keep] + letters(rng, 200 - keep)]
        similarity.append(jaccard(*texts[-2:]))
    similarity = np.array(similarity)
    dropped = np.isin(np.arange(1, 400, 2), dropped_texts(find, "near", texts))
    assert not set(dropped_texts(find, "near", texts)) & set(range(0, 400, 2))
    assert np.sum(similarity >= 0.9) > 15 and dropped[similarity >= 0.9].all()
    assert np.sum(similarity < 0.7) > 50 and not dropped[similarity < 0.7].any()


def test_the_bands_find_as_many_as_the_formula_says(find):
    rng = random.Random(6)
    texts = []
    for _ in range(300):
        text = letters(rng, 200)
        texts += [text, text[:150] + letters(rng, 50)]
    s = jaccard(*texts[:2])
    signatures = Signer("near").signatures(texts)
    met = np.any(signatures[::2, :16] == signatures[1::2, :16], axis=1).mean()
    expected = 1 - (1 - s ** 8) ** 16
    assert 0.2 < expected < 0.8 and abs(met - expected) < 4 * np.sqrt(expected * (1 - expected) / 300)


@pytest.mark.parametrize("threshold, dropped", [(0.5, True), (0.95, False)])
def test_the_threshold_decides(find, threshold, dropped):
    text = letters(random.Random(7), 300)
    again = text[:270] + letters(random.Random(8), 30)
    assert 0.75 < jaccard(text, again) < 0.85
    assert dropped_texts(find, "near", [text, again], threshold) == ([1] if dropped else [])


@pytest.mark.parametrize("equal, dropped", [(65, [1]), (64, [])])
def test_bytes_equal_by_chance_are_no_similarity(find, equal, dropped):
    # Of 128, 64 are half: a little less than half without those that chance makes equal.
    signatures = np.zeros([2, duplicates.WORDS["near"]], np.uint64)
    signatures[1, 16:].view(np.uint8)[equal:] = 1
    assert find("near", signatures, threshold=0.5) == dropped


def test_a_band_in_common_by_chance_drops_nothing(find):
    signatures = np.random.RandomState(0).randint(0, 2 ** 62, (50, duplicates.WORDS["near"])).astype(np.uint64)
    signatures[:, 3] = 12345
    assert find("near", signatures) == []


def test_duplicates_are_found_behind_another_document_of_their_band(find):
    signatures = np.random.RandomState(0).randint(0, 2 ** 62, (8, duplicates.WORDS["near"])).astype(np.uint64)
    signatures[7] = signatures[4]
    signatures[:, :16] = 1  # all meet in every band, as forms with a long part in common do
    assert find("near", signatures) == [7]


def test_a_chain_keeps_at_least_its_first(find):
    text = letters(random.Random(9), 200)
    chain = [text[20 * step:] + letters(random.Random(step), 20 * step) for step in range(8)]
    dropped = dropped_texts(find, "near", chain)
    assert dropped and 0 not in dropped


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match="fuzzy.*exact, near"):
        Signer("fuzzy")


# ---- signatures

@pytest.mark.parametrize("kind", ["exact", "near"])
def test_a_text_has_the_same_signature_alone_and_in_any_company(kind):
    rng = random.Random(4)
    texts = [letters(rng, rng.choice([0, 3, 9, 10, 11, 60])) for _ in range(40)] + ["\U0001F600" * 20, "a\0b" * 20]
    signer = Signer(kind)
    together = signer.signatures(texts)
    assert together.dtype == np.uint64 and together.shape == (42, duplicates.WORDS[kind])
    for text, signature in zip(texts, together):
        assert np.array_equal(Signer(kind).signatures([text])[0], signature)


@pytest.mark.parametrize("kind", ["exact", "near"])
def test_no_texts_have_no_signatures(kind):
    assert Signer(kind).signatures([]).shape == (0, duplicates.WORDS[kind])


def test_signatures_are_the_same_on_every_python():
    signatures = np.concatenate([Signer(kind).signatures(["好", POSTING]) for kind in ("exact", "near")], axis=1)
    assert [hex(value) for value in duplicates.keys_of(*signatures.T).tolist()] == [
        "0xa13486539aaa43da", "0xb9fb1f61ae98253f"]


def test_the_minima_of_a_long_document_are_those_of_its_parts():
    values = np.random.RandomState(0).randint(0, 2 ** 32, 5000).astype(np.uint64)
    sign = duplicates._MinHashes()
    parts = [sign._minima(values[start:start + 700]) for start in range(0, 5000, 700)]
    assert np.array_equal(sign._minima(values), np.min(parts, axis=0))


# ---- finding them on disk

@given(strategies.sampled_from(["exact", "near"]), strategies.integers(0, 2 ** 31), strategies.integers(1, 90),
       strategies.integers(1, 30), strategies.sampled_from([0.5, 0.8, 1.0]))
@settings(max_examples=60, deadline=None)
def test_the_result_is_the_rules(tmp_path_factory, kind, seed, count, values, threshold):
    signatures = made_up(kind, count, values, seed)
    rng = np.random.RandomState(seed)
    places = rng.permutation(3 * count)[:count].astype(np.uint64) + np.uint64(5 << 40)
    files = SignatureFiles(str(tmp_path_factory.mktemp("rule")), kind, threshold)
    files.add(places, signatures)
    found = np.fromfile(files.duplicates(), np.uint64).tolist()
    assert found == by_the_rule(kind, signatures, places, threshold)


@pytest.mark.parametrize("kind", ["exact", "near"])
def test_many_parts_on_disk_give_what_one_gives(find, monkeypatch, kind):
    signatures = made_up(kind, 3000, 1000, seed=1, changed=0.2)
    places = np.random.RandomState(1).permutation(9000)[:3000].astype(np.uint64)
    expected = find(kind, signatures, places)
    assert expected == by_the_rule(kind, signatures, places, 0.8) and 200 < len(expected) < 2500
    monkeypatch.setattr(duplicates, "PART_BYTES", 200 * duplicates.ENTRY_BYTES)
    monkeypatch.setattr(duplicates, "PAIRS", 7)
    assert find(kind, signatures, places, order=np.random.RandomState(2).permutation(3000)) == expected


@pytest.mark.parametrize("kind", ["exact", "near"])
def test_more_copies_of_one_text_than_fit_into_memory_leave_the_earliest(find, monkeypatch, kind):
    monkeypatch.setattr(duplicates, "PART_BYTES", 100 * duplicates.ENTRY_BYTES)
    signatures = Signer(kind).signatures(["同一段文字" * 10, "另外一个完全不同的文件内容"])[[0] * 3000 + [1] * 2]
    places = np.random.RandomState(1).permutation(9000)[:3002].astype(np.uint64)
    stay = sorted([places[:3000].min(), places[3000:].min()])
    assert sorted(set(places.tolist()) - set(find(kind, signatures, places))) == stay


def test_more_unlike_documents_of_one_band_than_fit_into_memory_stay(find, monkeypatch):
    monkeypatch.setattr(duplicates, "PART_BYTES", 100 * duplicates.ENTRY_BYTES)
    signatures = np.random.RandomState(0).randint(0, 2 ** 62, (500, duplicates.WORDS["near"])).astype(np.uint64)
    signatures[:, 0] = 1
    signatures[400:] = signatures[:100]
    assert find("near", signatures) == list(range(400, 500))


@given(strategies.integers(0, 2 ** 31), strategies.integers(1, 40), strategies.sampled_from([20, 77, 150]))
@settings(max_examples=20, deadline=None)
def test_the_order_of_adding_changes_nothing(tmp_path_factory, seed, values, batch):
    signatures = made_up("near", 150, values, seed)
    budget, duplicates.PART_BYTES = duplicates.PART_BYTES, 50 * duplicates.ENTRY_BYTES
    found = []
    try:
        for order in (np.arange(150), np.random.RandomState(seed).permutation(150)):
            files = SignatureFiles(str(tmp_path_factory.mktemp("order")), "near")
            for start in range(0, 150, batch):
                own = order[start:start + batch]
                files.add(own.astype(np.uint64), signatures[own])
            found.append(np.fromfile(files.duplicates(), np.uint64).tolist())
    finally:
        duplicates.PART_BYTES = budget
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["exact", "near"])
def test_no_document_at_all_and_a_single_one_are_no_duplicates(find, kind):
    assert find(kind, Signer(kind).signatures([])) == []
    assert find(kind, Signer(kind).signatures([POSTING])) == []


def test_nothing_added_is_nothing_dropped(tmp_path):
    dropped = Dropped(SignatureFiles(str(tmp_path), "near").duplicates())
    assert len(dropped) == 0 and dropped.contains(np.arange(3, dtype=np.uint64)).tolist() == [False] * 3


def test_places_are_looked_up_whatever_lies_beside_them(tmp_path):
    np.array([7, 9, 2 ** 64 - 1], np.uint64).tofile(str(tmp_path / "dropped"))
    dropped = Dropped(str(tmp_path / "dropped"))
    assert len(dropped) == 3
    asked = np.array([2 ** 64 - 1, 0, 7, 8, 9, 10, 2 ** 64 - 2], np.uint64)
    assert dropped.contains(asked).tolist() == [True, False, True, False, True, False, False]
    assert dropped.contains(asked[:0]).tolist() == []


def test_no_parts_are_left_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "PART_BYTES", 100 * duplicates.ENTRY_BYTES)
    files = SignatureFiles(str(tmp_path), "exact")
    files.add(np.arange(1000, dtype=np.uint64), made_up("exact", 1000, 10, seed=3))
    files.duplicates()
    assert not list(tmp_path.glob("part-*"))


# ---- resources

def run_alone(code):
    return json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=CHECKOUT))


@pytest.mark.parametrize("kind, count, same, limit", [("exact", 800000, 300, 14), ("near", 100000, 10, 8)])
def test_memory_does_not_grow_with_the_number_of_documents(tmp_path, kind, count, same, limit):
    code = """if True:
        import numpy as np
        from bert import duplicates
        def peak():  # MB; unlike ru_maxrss it starts anew with the program
            return int(next(line for line in open("/proc/self/status") if "VmHWM" in line).split()[1]) / 1024
        kind, count, same = %r
        duplicates.PART_BYTES, duplicates.PAIRS = 1 << 20, 1 << 10
        files = duplicates.SignatureFiles(%r, kind)
        rng = np.random.RandomState(0)
        before = peak()
        for start in range(0, count, 1000):
            signatures = rng.randint(0, 2 ** 62, (1000, duplicates.WORDS[kind])).astype(np.uint64)
            signatures[:same] = 5  # one text, very often
            signatures[same:2 * same] = signatures[-same:]  # and as many twice
            files.add(np.arange(start, start + 1000, dtype=np.uint64), signatures)
        dropped = len(duplicates.Dropped(files.duplicates()))
        print([dropped, peak() - before])
    """ % ((kind, count, same), str(tmp_path))
    dropped, grown = run_alone(code)
    assert dropped == 2 * same * count // 1000 - 1
    assert grown < limit


def test_importing_loads_neither_tensorflow_nor_scipy():
    code = "import json, sys, bert.duplicates; print(json.dumps(sorted({'scipy', 'tensorflow'} & set(sys.modules))))"
    assert run_alone(code) == []
