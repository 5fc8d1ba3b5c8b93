"""What becomes of each code point when text is cut into words, as tables for a graph.

Lower-casing, canonical decomposition (NFD) and dropping accents give for each code point at most a few others, but for
what depends on neighbours: the final sigma, and marks that change places. Which characters are what is told by the
running Python's `unicodedata`, as `bert.tokenization` does.
"""

import collections
import functools
import unicodedata

import numpy as np

from bert import tokenization

CODES = 0x110000
PAGE_BITS = 8

# In a row of `Replacements`: nothing more; an accent that goes, yet keeps marks before and behind it apart; the code
# point itself.
NOTHING, BREAK, ITSELF = -1, -2, -3

DROPPED = 0  # the row of what becomes nothing
UNCHANGED = ("Cn", "Co", "Cs")  # categories of what has no properties: not assigned, private, surrogates

PLAIN, SPACE, ALONE = range(3)  # kinds: part of a word, ends one, a word of its own

# pages int32 [CODES >> PAGE_BITS]: where the page of these code points begins; entries int32: all different pages.
Pages = collections.namedtuple("Pages", "pages entries")

# row_of: Pages, code point -> row; rows int32 [R, K]: its replacement; alone bool [R]: whether it is a word of its own.
Replacements = collections.namedtuple("Replacements", "row_of rows alone")


@functools.lru_cache(maxsize=None)
def _assigned():
    """The code points that have properties: one in four."""
    return [code for code in range(CODES) if unicodedata.category(chr(code)) not in UNCHANGED]


def by_pages(values):
    """`Pages` of an int32 [CODES]: most pages are like another."""
    parts, which = np.unique(values.reshape([-1, 1 << PAGE_BITS]), axis=0, return_inverse=True)
    return Pages((which.reshape([-1]) << PAGE_BITS).astype(np.int32), parts.reshape([-1]).astype(np.int32))


@functools.lru_cache(maxsize=None)
def replacements(lower):
    """`Replacements`; lower: whether to lower-case and drop accents."""
    rows = {((), False): DROPPED, ((ITSELF,), False): DROPPED + 1}  # insertion order is that of the numbers
    row_of = np.full([CODES], DROPPED + 1, np.int32)
    for first, last in tokenization.CHINESE_BLOCKS:  # the whole blocks, what is not assigned in them too
        row_of[first:last + 1] = rows.setdefault(((ITSELF,), True), len(rows))
    for code in _assigned():
        becomes = _replacement(chr(code), lower)
        row = ((ITSELF,) if becomes == (code,) else becomes, tokenization.is_chinese(chr(code)))
        row_of[code] = rows.setdefault(row, len(rows))
    padded = np.full([len(rows), max(len(becomes) for becomes, _ in rows)], NOTHING, np.int32)
    for (becomes, _), number in rows.items():
        padded[number, :len(becomes)] = becomes
    return Replacements(by_pages(row_of), padded, np.array([own for _, own in rows]))


def _replacement(char, lower):
    """Tuple of code points, or of the marks above, that a character becomes."""
    category = unicodedata.category(char)
    if char in "\t\n\r" or category == "Zs":
        return (ord(" "),)
    if char == "\ufffd" or category in ("Cc", "Cf"):
        return ()
    if not lower:
        return (ord(char),)
    return tuple(code for code in map(_without_mark, unicodedata.normalize("NFD", char.lower())) if code != NOTHING)


def _without_mark(char):
    """The code point, `NOTHING` for an accent, or `BREAK` for one that stands where it is."""
    if unicodedata.category(char) != "Mn":
        return ord(char)
    return NOTHING if unicodedata.combining(char) else BREAK


@functools.lru_cache(maxsize=None)
def kinds():
    """`Pages` of PLAIN, SPACE or ALONE, of what is left after replacement."""
    values = np.zeros([CODES], np.int32)
    for code in _assigned():
        char = chr(code)
        if char.isspace():
            values[code] = SPACE
        elif tokenization.is_punctuation(char):
            values[code] = ALONE
    return by_pages(values)


@functools.lru_cache(maxsize=None)
def combining_classes():
    """`Pages` of canonical combining classes of what is no accent (Unicode 3.11): few are not 0."""
    values = np.zeros([CODES], np.int32)
    for code in _assigned():
        char = chr(code)
        if unicodedata.combining(char) and unicodedata.category(char) != "Mn":
            values[code] = unicodedata.combining(char)
    return by_pages(values)


# What Python looks at on either side of a capital sigma (Unicode 3.13, Final_Sigma).
UNCASED, CASED, IGNORED = range(3)


@functools.lru_cache(maxsize=None)
def casing():
    """`Pages` of UNCASED, CASED or IGNORED, found out by lower-casing: Python tells it nowhere."""
    values = np.zeros([CODES], np.int32)
    for code in _assigned():
        char = chr(code)
        if _is_final(char + "\u03a3"):
            values[code] = CASED
        elif _is_final("A" + char + "\u03a3"):
            values[code] = IGNORED
    return by_pages(values)


def _is_final(text):
    """Whether the capital sigma at a text's end becomes a final one."""
    return text.lower().endswith("\u03c2")
