"""Every bad input is one readable line and changes nothing; `make test-inputs` runs the same table for its figures."""

from __future__ import annotations

import itertools
import re
import sys
import unicodedata
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from ballast.cli import TRACEBACK, parser, printable_output, run
from ballast.exceptions import TEMPORARY, TransientError, UserError, is_transient, suggestion
from ballast.io.printable import LONGEST_LINE, PrintableStream, one_line, printable, printable_values
from stages.production.candidate import locked_stages
from stages.production.incoming import read_rows
from stages.production.rows import Columns
from stages.store import places
from tests.bad_inputs import Case, base, tried, wrong
from tests.bad_labels import labels
from tests.bad_settings import YAMLS, settings
from tests.bad_tables import ANSWERS, of_server, server, tables
from tests.project import Project

CASES = [*settings(), *tables(), *labels()]
COLUMNS = Columns(text="text", id=None, settings={"text": "ingest.text_column"})
EVERY = "".join(map(chr, range(sys.maxunicode + 1)))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return base(tmp_path_factory.mktemp("inputs"))


def test_the_table_has_many_kinds_and_no_case_twice() -> None:
    assert len({case.id for case in CASES}) == len(CASES) >= 250
    assert len({case.kind for case in CASES}) >= 10


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case.id))
def test_a_bad_input_is_one_readable_line(project: Project, case: Case) -> None:
    assert wrong(case, *tried(project, case)) == []


@pytest.mark.parametrize("name", ANSWERS)
def test_a_server_that_fails_is_one_readable_line(project: Project, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SILENT_SECONDS", 0.3)
    with server(ANSWERS[name][0]) as port:
        assert [wrong(case, *tried(project, case)) for case in of_server(name, port)] == [[], []]


def test_all_that_a_terminal_obeys_is_escaped_and_what_people_read_is_not() -> None:
    shown = printable(EVERY)
    assert {unicodedata.category(each) for each in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"} == set()
    assert shown.isprintable() or {unicodedata.category(each) for each in shown if not each.isprintable()} <= {"Zs", "Cn", "Co"}
    assert printable(shown) == shown
    for word in ("ham", "Grüße", "спам", "垃圾", "\N{GRINNING FACE}", "a\\b"):
        assert printable(word) == word
    assert printable("\x1b[31m\x9b\0\u202e\ufeff\ud800\n\t") == r"\x1b[31m\x9b\x00\u202e\ufeff\ud800\n\t"
    assert printable("a\n\tb\r\x1b", lines=True) == "a\n\tb\\r\\x1b"
    assert printable_values({"a\0": ["\x1b", 1, None, ("\u202e",)]}) == {r"a\x00": [r"\x1b", 1, None, [r"\u202e"]]}


@pytest.mark.parametrize("length", [0, 1, 999, 1000, 1001, 20_000, 1_000_000])
def test_a_line_keeps_its_ends(length: int) -> None:
    line = one_line("begin " + "x" * length + " end")
    assert line.startswith("begin x" if length else "begin") and line.endswith("end")
    assert len(line) <= LONGEST_LINE
    left_out = re.search(r"\((\d+) left out\)", line)
    shown = len(line) - len(left_out[0]) - len(" ...  ... ") if left_out else len(line)
    assert shown + int(left_out[1] if left_out else 0) == len(" ".join(f"begin {'x' * length} end".split()))


def test_a_progress_bar_gets_through_and_data_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    from tqdm import tqdm

    with (
        printable_output(),
        tqdm(total=2, desc="bar", file=sys.stderr) as bar,
        tqdm(total=2, position=1, file=sys.stderr) as other,
    ):
        bar.update()
        other.update()
        print("label \x1b[31m\rham\u202e", file=sys.stderr)
        print("label \x1b[31m")
    shown = capsys.readouterr()
    assert "\\r" not in shown.err.replace("\\rham", "") and "\rbar:  50%" in shown.err
    assert r"label \x1b[31m\rham\u202e" in shown.err
    assert shown.out == "label \\x1b[31m\n"
    assert not isinstance(sys.stderr, PrintableStream)


def test_wrong_arguments_are_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    made = parser("A command.")
    made.add_argument("--size", type=int)
    for arguments, said in (
        (["--size", "\x1b[31m"], r"--size: invalid int value: '\x1b[31m'"),
        (["--size", "9" * 5000], "--size: invalid int value: '999"),
        (["--\u202esize"], r"unrecognized arguments: --\u202esize"),
        (["--size"], "--size: expected one argument"),
    ):
        with pytest.raises(SystemExit) as end:
            made.parse_args(arguments)
        [line] = capsys.readouterr().err.splitlines()
        assert end.value.code == 1 and line.startswith("error: ") and said in line and "--help" in line
        assert len(line) < LONGEST_LINE + 10


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("a\x1bb\nc"), 1, r"error: a\x1bb c"),
        (TransientError("away"), TEMPORARY, "error: away"),
        (ValueError("\0"), 1, rf"error: ValueError: \x00 (set {TRACEBACK}=1 for the traceback)"),
        (RecursionError(), 1, f"error: RecursionError: (set {TRACEBACK}=1 for the traceback)"),
    ],
)
def test_how_a_command_ends(error: Exception, code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run(main, Namespace(traceback=False))
    assert (end.value.code, capsys.readouterr().err) == (code, line + "\n")


def chained(*errors: Exception) -> Exception:
    """The last error, each led to by the one before."""
    for cause, error in itertools.pairwise(errors):
        error.__cause__ = cause
    return errors[-1]


def errors() -> Iterator[tuple[Exception, bool]]:
    """Errors of the libraries that read sources, and whether a later try may succeed."""
    import aiohttp
    import httpx
    from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
    from fsspec.exceptions import FSTimeoutError

    request = httpx.Request("GET", "http://localhost")
    for status, transient in ((404, False), (403, False), (408, True), (429, True), (500, True), (503, True)):
        yield httpx.HTTPStatusError("", request=request, response=httpx.Response(status)), transient
        answer = {"Error": {}, "ResponseMetadata": {"HTTPStatusCode": status}}
        yield ClientError(answer, "GetObject"), transient  # type: ignore[arg-type]
        yield chained(ClientError(answer, "GetObject"), OSError("of s3fs")), transient  # type: ignore[arg-type]
    for error in (ConnectionResetError(), TimeoutError(), FSTimeoutError(), httpx.ReadTimeout("")):
        yield error, True
        yield chained(error, FileNotFoundError("http://localhost")), True
    yield EndpointConnectionError(endpoint_url="http://localhost"), True
    yield aiohttp.ServerDisconnectedError(), True
    yield aiohttp.ClientPayloadError(), True
    for other in (NoCredentialsError(), FileNotFoundError(), PermissionError(), ValueError(), UserError("wrong")):
        yield other, False


def test_what_may_succeed_later() -> None:
    assert [repr(error) for error, transient in errors() if is_transient(error) is not transient] == []


def test_a_name_among_very_many_is_found_at_once_and_the_line_stays_one() -> None:
    names = [f"column {at}" for at in range(200_000)]
    assert suggestion("colum 17", names).startswith("did you mean 'column")
    assert len(suggestion("x" * 10_000_000, [*names, "y" * 10_000_000])) < 2 * LONGEST_LINE


def test_a_folder_of_names_with_escapes(project: Project) -> None:
    folder = project.folder / "odd"
    folder.mkdir()
    try:
        (folder / "\x1b[31ma.doc").write_bytes(b"")
        with pytest.raises(UserError, match=r"\\x1b\[31ma.doc: unknown format"):
            next(read_rows(str(folder), COLUMNS))
    finally:
        (folder / "\x1b[31ma.doc").unlink()
        folder.rmdir()


LOCKS = {
    "empty": b"",
    "a list": b"- stages",
    "a word": b"stages",
    "no stages": b"schema: '2.0'",
    "a list of stages": b"stages: [train]",
    "a stage of nothing": b"stages: {train: null}",
    "a stage of words": b"stages: {train: words}",
    "deps of words": b"stages: {train: {deps: words}}",
    "deps of no files": b"stages: {train: {deps: [words]}}",
    "a dep without its path": b"stages: {train: {outs: [{md5: x}]}}",
    "a path of numbers": b"stages: {train: {outs: [{path: 5}]}}",
    **{
        name: YAMLS[name][0]
        for name in ("10,000 brackets", "a billion laughs", "a key twice", "UTF-16", "two documents", "a NUL")
    },
}


@pytest.mark.parametrize("content", LOCKS.values(), ids=LOCKS)
def test_a_lock_that_dvc_never_wrote_is_named(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvc.lock").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^dvc\.lock: "):
        locked_stages(Path("dvc.lock"))
