"""Which encoding a text file has: by its byte order mark, else UTF-8 if it fits, else the most plausible older one.

The rules are in the manual (Own data). JSON is UTF-8 or UTF-16 by its standard, so that older encodings are not tried.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from stages.tables.lines import binary_file

BLOCK_BYTES, SAMPLE_BYTES = 1 << 20, 1 << 16
MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Bytes at the beginning in which UTF-16 without a mark has a NUL at every second place: a header is mostly ASCII.
HEAD = 16
UNDECODABLE, NOT_ASCII = re.compile("[\udc80-\udcff]"), re.compile("[^\x00-\x7f\udc80-\udcff]")
# Letters beyond ASCII of the languages that Windows-1252 is mostly used for: French, German, Spanish, Catalan, Portuguese,
# Italian, Danish with Norwegian and Swedish, Estonian with Finnish, Dutch.
LANGUAGES = [
    *map(frozenset, ("àâæçéèêëîïôœùûüÿ", "äöüßé", "áéíñóúüçºª", "àèéíïòóúüç", "áâãàçéêíóôõúüºª", "àèéìíîòóùúºª")),
    *map(frozenset, ("áäåæéöøü", "äöõüšž", "áéëèêïíóöôúüç")),
]
# Symbols of Windows-1252 within a word are letters of another encoding.
SYMBOLS = re.compile(r"[€£¥§°«»“”‘’‚„–—…•´`©®™½¼¾²³¹·¿¡\u00a0]")
WITHIN = re.compile(r"[£¥§°©®½¼¾²³¹](?=[^\W\d_])|(?<=[^\W\d_])[¿¡]")
LEAST_WESTERN = 0.97
# Encodings that charset-normalizer may choose: none of them hides a line end within another character.
OLDER = [
    *(f"cp{number}" for number in (1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258, 850, 866, 874, 932, 949)),
    *("koi8_r", "big5", "gb18030", "shift_jis", "euc_jp", "euc_kr", "iso8859_5", "iso8859_7", "mac_roman"),
    *("iso8859_2", "iso8859_9", "iso8859_15"),
]
# By charset-normalizer, another encoding is possible if its text has at most so much more chaos than the best, and at least so
# much of its coherence.
CHAOS, COHERENCE, MOST_ALTERNATIVES = 0.1, 0.7, 5
# Fewer bytes beyond ASCII show no encoding clearly; these are the most frequent ones.
FEW_BYTES, FREQUENT = 20, ("cp1252", "cp1250", "cp1251", "cp1254")
NAMES = {"utf-8": "UTF-8", "utf-16": "UTF-16", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16", "utf-32": "UTF-32"}


def encoding_name(encoding: str) -> str:
    """An encoding as the line about a dialect names it.

    >>> encoding_name("utf-16-le"), encoding_name("cp1252")
    ('UTF-16', 'Windows-1252 (Latin-1)')
    """
    if encoding == "cp1252":
        return "Windows-1252 (Latin-1)"
    return NAMES.get(encoding) or re.sub(r"^cp(125\d)$", r"Windows-\1", encoding)


def marked(head: bytes) -> str | None:
    """The encoding by the first bytes of a file: by a byte order mark, or by the NULs of UTF-16; None if they show none."""
    for mark, encoding in MARKS.items():
        if head.startswith(mark):
            return encoding
    even, odd = head[0:HEAD:2], head[1:HEAD:2]
    if len(odd) >= 3 and not any(odd) and all(even):
        return "utf-16-le"
    if len(odd) >= 3 and not any(even) and all(odd):
        return "utf-16-be"
    return None


def is_western(text: str) -> bool:
    """Whether text that was decoded as Windows-1252 has in each line letters of one Western European language.

    >>> is_western("Grüße für 5 €"), is_western("Dobrý den, kdy pøijde zásilka"), is_western("moja córka idzie spaæ, bo pó¼no")
    (True, False, False)
    """
    known = total = 0
    for line in text.lower().split("\n"):
        letters = NOT_ASCII.findall(SYMBOLS.sub("", line))
        known += max(sum(letter in language for letter in letters) for language in LANGUAGES)
        total += len(letters) + len(WITHIN.findall(line))
    return known >= LEAST_WESTERN * total


def older_encoding(sample: bytes) -> tuple[str, tuple[str, ...]]:
    """The encoding of lines that are not UTF-8, and others that are possible; none if the evidence is clear."""
    import charset_normalizer

    western = sample.decode("cp1252", "replace")
    if "\ufffd" not in western and is_western(western):
        return "cp1252", ()
    # A mark would be the first character of a file, not of a sample.
    matches = charset_normalizer.from_bytes(sample, cp_isolation=OLDER, preemptive_behaviour=False)
    if (best := matches.best()) is None:
        return ("utf-8", ()) if "\ufffd" in western else ("cp1252", ("cp1250", "cp1254", "cp1257"))
    texts, others = {str(best)}, []
    for match in matches:
        plausible = match.chaos <= best.chaos + CHAOS and match.coherence >= COHERENCE * best.coherence
        if plausible and str(match) not in texts:
            texts.add(str(match))
            others.append(codecs.lookup(match.encoding).name)
    chosen = codecs.lookup(best.encoding).name
    if not others and sum(byte > 127 for byte in sample) < FEW_BYTES:
        others = [each for each in FREQUENT if each != chosen]
    return chosen, tuple(others[:MOST_ALTERNATIVES])


def detect_encoding(path: Path, compression: str, *, json: bool = False) -> tuple[str, tuple[str, ...]]:
    """The encoding of a text file, as Python names it, and others that are possible.

    A file is UTF-8 if at least a third of its characters beyond ASCII are UTF-8 and in lines without other bytes; lines with
    other bytes are then rejected rows.
    """
    with binary_file(path, compression) as file:
        head = file.read(HEAD)
    if encoding := marked(head):
        return encoding, ()
    valid = invalid = 0
    sample = b""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    with binary_file(path, compression) as file:
        while block := file.read(BLOCK_BYTES):
            text = decoder.decode(block)
            if text.isascii():
                continue
            bad = len(UNDECODABLE.findall(text))
            invalid += bad
            if not bad:
                valid += len(block) - len(text)
                continue
            # Pairs of bytes of other encodings are UTF-8 by chance.
            valid += sum(len(NOT_ASCII.findall(line)) for line in text.split("\n") if not UNDECODABLE.search(line))
            if len(sample) < SAMPLE_BYTES:
                lines = [line for line in block.split(b"\n") if not line.isascii()]
                sample += b"\n".join(lines)[: SAMPLE_BYTES - len(sample)]
    invalid += len(decoder.decode(b"", final=True))
    if json or invalid == 0 or not sample or 2 * valid >= invalid:
        return "utf-8", ()
    return older_encoding(sample)
