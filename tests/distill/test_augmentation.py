import numpy as np
import pytest

from bert.draws import Draws, keys_of
from distill import augmentation
from distill.augmentation import Lexicon, Rules, Word

TAGS = "nva"
COUNTS = {("%s%d" % (tag, number), tag): number + 1 for tag in TAGS for number in range(4)}
LEXICON = Lexicon(COUNTS)
WORDS = [Word("%d%s" % (place, TAGS[place % 3]), TAGS[place % 3], "") for place in range(40)]
NOTHING = Rules(0.0, 0.0, 0.0, 5)


def copies(number, words=WORDS, seed=1, lexicon=LEXICON, **rules):
    return augmentation.copies(
        words, lexicon, NOTHING._replace(**rules), Draws(keys_of(seed, np.arange(number))))


def assert_share(found, total, probability):
    """Within 4 standard deviations of a binomial distribution."""
    spread = (total * probability * (1 - probability)) ** 0.5
    assert abs(found - total * probability) < 4 * spread, (found, total * probability, spread)


# ---- words

def test_white_space_stands_behind_the_word_before_it():
    tagged = [(" ", "x"), ("房间", "n"), (" ", "x"), ("\n", "x"), ("小", "a"), ("。", "x"), ("\u3000", "x")]
    words = augmentation.words_of(tagged)
    assert words == [Word("房间", "n", " \n"), Word("小", "a", ""), Word("。", "x", "\u3000")]
    assert augmentation.fields_of([augmentation.plain(words)]) == {"text_a": "房间 \n小。"}


def test_words_are_drawn_as_often_as_they_stand_in_the_text():
    drawn = [LEXICON.word("v", draw) for draw in Draws(keys_of(3, np.arange(20000))).uniform(0, 1)[:, 0]]
    for number in range(4):
        assert_share(drawn.count("v%d" % number), len(drawn), (number + 1) / 10)


@pytest.mark.parametrize("draw, word", [(0.0, "n0"), (0.0999, "n0"), (0.1, "n1"), (1 - 2.0 ** -53, "n3")])
def test_each_word_has_its_part_of_the_draws(draw, word):
    assert LEXICON.word("n", draw) == word


def test_the_order_of_counting_changes_no_draw():
    other = Lexicon(dict(sorted(COUNTS.items(), reverse=True)))
    assert all(LEXICON.word("n", draw) == other.word("n", draw) for draw in np.linspace(0, 0.999, 100))


# ---- copies

def test_nothing_happens_where_all_probabilities_are_0():
    made, counts = copies(3)
    assert made == [augmentation.plain(WORDS)] * 3
    assert (counts["words"], counts["masked"], counts["replaced"]) == (120, 0, 0)


def test_words_are_masked_replaced_or_kept_as_often_as_was_said():
    made, counts = copies(1000, mask_prob=0.1, pos_prob=0.2)
    masked = sum(text is None for copy in made for text, _ in copy)
    kept = sum(text == word.text for copy in made for (text, _), word in zip(copy, WORDS))
    total = 1000 * len(WORDS)
    assert_share(masked, total, 0.1)
    assert_share(kept, total, 0.7)
    assert (counts["words"], counts["masked"], counts["replaced"]) == (total, masked, total - masked - kept)


def test_each_place_has_the_same_chance():
    made, _ = copies(4000, mask_prob=0.1)
    for place in range(len(WORDS)):
        assert_share(sum(copy[place][0] is None for copy in made), 4000, 0.1)


def test_a_word_is_replaced_by_one_with_its_tag_drawn_as_often_as_it_is_frequent():
    made, _ = copies(1000, pos_prob=1.0)
    drawn = {tag: [] for tag in TAGS}
    for copy in made:
        for (text, _), word in zip(copy, WORDS):
            assert (text, word.tag) in COUNTS
            drawn[word.tag].append(text)
    for text, tag in COUNTS:
        assert_share(drawn[tag].count(text), len(drawn[tag]), COUNTS[text, tag] / 10)


def test_a_word_whose_tag_is_unknown_stays_and_is_not_counted():
    made, counts = copies(5, pos_prob=1.0, lexicon=Lexicon({("大", "a"): 1}))
    for copy in made:
        assert copy == [("大" if word.tag == "a" else word.text, "") for word in WORDS]
    assert counts["replaced"] == 5 * sum(word.tag == "a" for word in WORDS)


def test_white_space_stays_when_its_word_does_not():
    words = [Word("a", "n", " "), Word("b", "v", "\n")]
    assert copies(1, words, mask_prob=1.0)[0] == [[(None, " "), (None, "\n")]]
    assert [space for _, space in copies(1, words, pos_prob=1.0)[0][0]] == [" ", "\n"]


def test_some_copies_are_cut_to_words_in_a_row_every_length_and_place_alike():
    made, _ = copies(8000, ngram_prob=0.25)
    cut = [[int(text[:-1]) for text, _ in copy] for copy in made if len(copy) < len(WORDS)]
    assert_share(len(cut), 8000, 0.25)
    for size in range(1, 6):
        assert_share(sum(len(places) == size for places in cut), len(cut), 0.2)
    assert all(places == list(range(places[0], places[0] + len(places))) for places in cut)
    starts = [places[0] for places in cut if len(places) == 1]
    assert min(starts) == 0 and max(starts) == len(WORDS) - 1


def test_a_text_of_fewer_words_than_are_to_stay_stays_whole():
    made, _ = copies(200, WORDS[:2], ngram_prob=1.0)
    assert {len(copy) for copy in made} == {1, 2}
    assert_share(sum(len(copy) == 1 for copy in made), 200, 0.2)


def test_a_copy_is_decided_by_its_own_stream():
    together, _ = copies(6, mask_prob=0.3, pos_prob=0.3, ngram_prob=0.5)
    alone, _ = copies(2, mask_prob=0.3, pos_prob=0.3, ngram_prob=0.5)
    assert together[:2] == alone
    assert copies(6, mask_prob=0.3, pos_prob=0.3, ngram_prob=0.5, seed=2)[0] != together


# ---- rows

def test_of_a_pair_the_first_the_second_and_both_are_changed_in_turns():
    a, b = [("a", "")], [("b", "")]
    made = [[("a%d" % number, "")] for number in range(4)], [[("b%d" % number, "")] for number in range(4)]
    rows = [[copy[0][0] for copy in row] for row in augmentation.alternate([a, b], made)]
    assert rows == [["a0", "b"], ["a", "b1"], ["a2", "b2"], ["a3", "b"]]
    assert augmentation.alternate([a], made[:1]) == [[copy] for copy in made[0]]


@pytest.mark.parametrize("row, fields", [
    ([[("房间", " "), ("小", "")]], {"text_a": "房间 小"}),
    ([[("[MASK]", "")]], {"text_a": "[MASK]"}),                                     # the text's own letters
    ([[(None, ""), ("小", "")]], {"text_a": "[MASK]小", "mask_token": "[MASK]"}),
    ([[(None, ""), ("[", ""), ("MASK", ""), ("]", "")]],
     {"text_a": "[[MASK]][MASK]", "mask_token": "[[MASK]]"}),
    ([[(None, "")], [("[MASK]", "")]], {"text_a": "[[MASK]]", "text_b": "[MASK]", "mask_token": "[[MASK]]"}),
])
def test_a_row_says_what_stands_for_a_mask(row, fields):
    assert augmentation.fields_of(row) == fields


def test_copies_like_the_text_or_like_an_earlier_copy_are_left_out():
    rows = [{"text_a": "b"}, {"text_a": "a"}, {"text_a": "b"}, {"text_a": "a", "mask_token": "[MASK]"}]
    assert augmentation.distinct({"text_a": "a"}, rows) == [rows[0], rows[3]]
