"""Rubbish that is bred: atheris keeps what reaches code that nothing before reached, and changes that.

    python -m tests.faults.guided tsv build/faults -runs=100000

A reader of `fuzz`, the folder of a `tests.faults` world, and libFuzzer's flags. Ends with an error, the case beside it,
when the reader raises anything but UserError, or when one case takes too long or too much memory.
"""

import os
import sys
import tempfile

import atheris

from tests.faults import world as worlds

with atheris.instrument_imports(include=["bert", "serving", "tasks", "training"], enable_loader_override=False):
    from tests.faults import fuzz

LONGEST_TEXT = 200  # characters


def main():
    name, folder, *flags = sys.argv[1:]
    reader = fuzz.READERS[name](worlds.World(folder))

    def of_text(data):
        provider = atheris.FuzzedDataProvider(data)
        which = provider.ConsumeBool()
        reader.check(provider.ConsumeUnicode(LONGEST_TEXT), int(which))

    with tempfile.TemporaryDirectory() as corpus:
        with open(os.path.join(corpus, "good"), "wb") as stream:
            stream.write(getattr(reader, "good", "酒店abc".encode("utf-8")))
        atheris.Setup([sys.argv[0], corpus, "-max_len=%d" % fuzz.LARGEST, "-timeout=%d" % fuzz.LONGEST,
                       "-rss_limit_mb=4096", "-artifact_prefix=%s/" % folder] + flags,
                      of_text if name == "tokenizer" else reader.check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
