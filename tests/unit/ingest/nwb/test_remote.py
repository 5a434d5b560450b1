"""Recordings on a server: the same arrays as from the file, and one sentence for what goes wrong."""

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner
from warm_python import run_snakemake

from colatent.cli import app
from colatent.config.file import load_config
from colatent.config.location import is_url, shown
from colatent.config.session_table import load_sessions
from colatent.errors import InputError
from colatent.ingest import ingest_session, inspect
from colatent.ingest.nwb import remote as streaming
from colatent.ingest.nwb.file import open_nwb
from colatent.ingest.preflight import check_inputs
from colatent.store.stores import MARKER, check_store, read_attrs

fsspec = pytest.importorskip("fsspec")
ROOT = Path(__file__).parents[4]


class Files(BaseHTTPRequestHandler):
    """Answers like a file server with ranges; ``server.mode`` makes it misbehave."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def do_GET(self) -> None:
        self._answer(send=True)

    def _answer(self, send: bool) -> None:
        server = self.server
        content = server.content.get(self.path.partition("?")[0])
        server.requests.append((self.command, self.headers.get("Range")))
        if server.mode == "silent":
            server.closing.wait()
            return None
        if self.path == "/break":
            server.mode = "broken"
            return self._send(200, b"", {})
        if content is None or server.mode == "broken" or (server.hiccups and self.headers.get("Range")):
            server.hiccups = max(server.hiccups - 1, 0)
            return self._send(404 if content is None else 503, b"", {})
        bounds = self.headers.get("Range", "").removeprefix("bytes=").split("-")
        headers = {"ETag": server.etag, "Last-Modified": "Mon, 02 Mar 2020 10:00:00 GMT"}
        if server.mode == "whole" or len(bounds) < 2:
            return self._send(200, content, headers, send)
        first, last = int(bounds[0]), min(int(bounds[1]), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(206, content[first : last + 1], headers, send)

    def _send(self, status: int, content: bytes, headers: dict[str, str], send: bool = True) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if send and self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setattr(streaming, "PAUSE", 0.01)
    monkeypatch.setattr(ThreadingHTTPServer, "handle_error", lambda *_: None)  # a client that hung up
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    httpd.daemon_threads = True
    httpd.content, httpd.requests, httpd.mode, httpd.hiccups, httpd.etag = {}, [], "fine", 0, '"v1"'
    httpd.closing = threading.Event()
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield httpd
    httpd.closing.set()
    httpd.shutdown()
    httpd.server_close()


def url_of(server: ThreadingHTTPServer, name: str = "x.nwb") -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


@pytest.fixture
def served(server, simulated_nwb) -> str:
    server.content["/x.nwb"] = simulated_nwb.read_bytes()
    return url_of(server)


@pytest.fixture
def demo():
    return load_config(ROOT / "config/config.yaml")


def ingest(where, config):
    truth = config.truth.source
    return ingest_session(where, config.alignment, config.modalities, {}, truth, progress=lambda _: None)


def assert_same_session(here, there):
    assert there.trials.modalities == here.trials.modalities
    for name in here.trials.modalities:
        np.testing.assert_array_equal(there.trials.values[name], here.trials.values[name])
        np.testing.assert_array_equal(there.trials.observed[name], here.trials.observed[name])
    assert there.trials.channels == here.trials.channels and there.attrs == here.attrs
    assert there.trial_table.equals(here.trial_table) and there.findings == here.findings
    np.testing.assert_array_equal(there.truth.values, here.truth.values)


def test_a_url_gives_the_same_session_as_the_file(served, server, simulated_nwb, demo, monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 2**16)
    here = ingest(simulated_nwb, demo)
    there = ingest(f"{served}?key=secret", demo)
    assert_same_session(here, there)
    size = simulated_nwb.stat().st_size
    assert there.source == {
        "file": served,  # without the key
        "size": size,
        "sha256": None,
        "not_hashed": "a remote file, of which only parts were read",
        "etag": '"v1"',
        "last_modified": "Mon, 02 Mar 2020 10:00:00 GMT",
        **{key: here.source[key] for key in ("nwb_version", "session_id", "identifier")},
    }
    # it is read in parts, never as a whole
    parts = [bounds for command, bounds in server.requests if command == "GET"]
    assert parts and None not in parts
    assert gc.isenabled()


def test_memory_protocol_and_inspect(simulated_nwb, demo):
    fsspec.filesystem("memory").pipe("/there/x.nwb", simulated_nwb.read_bytes())
    assert_same_session(ingest(simulated_nwb, demo), ingest("memory://there/x.nwb", demo))
    there, here = inspect("memory://there/x.nwb"), inspect(simulated_nwb)
    assert (there.items, there.tables) == (here.items, here.tables)
    named = here.config.replace(str(simulated_nwb), "memory://there/x.nwb")
    assert there.config == named.replace("reach_simulated", "x")  # the session, as its file


def test_only_what_is_asked_for_is_read(server, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 2**16)
    with h5py.File(tmp_path / "big.nwb", "w") as file:
        file.attrs["nwb_version"] = "2.7.0"
        file["data"] = np.arange(2_000_000)
    server.content["/x.nwb"] = (tmp_path / "big.nwb").read_bytes()
    with open_nwb(url_of(server)) as file:
        assert file["data"][1_000_000] == 1_000_000
        assert file.filename == url_of(server)
    assert sum(command == "GET" for command, _ in server.requests) < 8  # of 245 blocks


def test_a_hiccup_of_the_server_is_waited_out(served, server, simulated_nwb):
    server.hiccups = 2
    with open_nwb(served) as file, h5py.File(simulated_nwb) as expected:
        assert file["identifier"][()] == expected["identifier"][()]


def test_a_server_that_breaks_down_is_named(served, server, demo, monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 2**12)
    with pytest.raises(InputError, match="reading broke off") as error, open_nwb(served) as file:
        server.mode = "broken"
        file["units/spike_times"][:]
    assert served in str(error.value) and "the server answered 503" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_replaced_while_it_is_read_is_refused(served, server):
    with pytest.raises(InputError, match="replaced while it was read"), open_nwb(served):
        server.etag = '"v2"'


def test_external_links_of_a_remote_file_are_not_followed(server, simulated_nwb, tmp_path):
    linked = tmp_path / "linked.nwb"
    linked.write_bytes(simulated_nwb.read_bytes())
    with h5py.File(linked, "a") as file:
        file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")
    server.content["/x.nwb"] = linked.read_bytes()
    refused_in_one_sentence(url_of(server), r"elsewhere: a link to another file \(/etc/passwd\)")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "there is no such file on the server"),
        (b"", "is empty"),
        (b"not a recording" * 100, "not an HDF5 file"),
    ],
)
def test_what_is_no_recording_on_a_server(server, content, sentence):
    if content is not None:
        server.content["/x.nwb"] = content
    refused_in_one_sentence(url_of(server), sentence)


def test_a_truncated_remote_file_is_refused(served, server):
    server.content["/x.nwb"] = server.content["/x.nwb"][:-1000]
    refused_in_one_sentence(served, "truncated")


def test_a_server_without_ranges_is_named(served, server, monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 2**12)
    server.mode = "whole"
    refused_in_one_sentence(served, "does not send parts of files; download")


@pytest.mark.parametrize("mode", ["whole", "broken"])
def test_a_program_that_was_sent_no_parts_ends_by_itself(served, server, mode):
    server.mode = mode
    code = f"from colatent.cli import app; app(['inspect', {served!r}])"
    # HDF5 that closes a file on its own at exit would bring the interpreter down (SIGSEGV)
    preamble = "from colatent.ingest.nwb import remote; remote.PAUSE, remote.BLOCK_BYTES = 0, 2**12\n"
    if mode == "broken":  # only once the file is open
        server.mode = "fine"
        preamble += (
            "from colatent.ingest.nwb import file\n"
            "import urllib.request as r\n"
            f"file._require_nwb2 = lambda _: r.urlopen({url_of(server, 'break')!r})\n"
        )
    run = subprocess.run([sys.executable, "-c", preamble + code], capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.count("\n") == 1, (run.returncode, run.stderr)


@pytest.mark.parametrize("after_opening", [False, True])
def test_a_server_that_never_answers_is_given_up(served, server, monkeypatch, after_opening):
    monkeypatch.setattr(streaming, "TIMEOUT", 0.2)
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 2**12)
    server.mode = "fine" if after_opening else "silent"
    with pytest.raises(InputError, match=r"no answer within 0.2 s") as error, open_nwb(served) as file:
        server.mode = "silent"
        file["units/spike_times"][:]
    assert str(error.value).startswith(f"{served}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://[::1", "cannot be read from there"),
        ("http://[1/x.nwb?k=secret", "not a valid URL"),
        ("http://127.0.0.1:9/x.nwb", "cannot be reached"),
        ("memory://none.nwb", "there is no such file on the server"),
        ("ftp://host/x.nwb", "cannot be read from there"),
        ("file:///etc/passwd", "cannot be read from there"),
        ("zip://a.nwb::https://host/x.zip", "cannot be read from there"),
        ("https://host/x.zarr", "NWB-Zarr is not read"),
        ("https://user:secret@host/x.nwb?k=secret", "holds a user name or a password"),
    ],
)
def test_urls_that_cannot_be_read(url, sentence, monkeypatch):
    monkeypatch.setattr(streaming, "PAUSE", 0.01)
    refused_in_one_sentence(url, sentence)


def test_missing_credentials_are_told_from_a_broken_connection(simulated_nwb, monkeypatch):
    class NoCredentialsError(Exception):
        """As botocore's."""

    def info(*_: object) -> dict:
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(streaming, "PAUSE", 0.01)
    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "info", info)
    refused_in_one_sentence("memory://x.nwb", "for a public bucket, `export FSSPEC_S3_ANON=true`")


def refused_in_one_sentence(url: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as error, open_nwb(url):
        pass
    assert str(error.value).startswith(f"{shown(url)}: ") and "\n" not in str(error.value)
    assert "secret" not in str(error.value)
    run = CliRunner().invoke(app, ["inspect", url])
    assert run.exit_code == 1 and run.exception.__class__ is SystemExit


@pytest.mark.parametrize("package", ["fsspec", "aiohttp", "s3fs"])
def test_what_to_install_is_said(package):
    url = "s3://bucket/x.nwb" if package == "s3fs" else "https://host/x.nwb"
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"  # as if it were not installed
        f"from colatent.cli import app; app(['inspect', {url!r}])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.count("\n") == 1, run.stderr
    assert run.stderr.startswith(f"colatent: {url}: reading from a server needs packages")
    remedy = "run `pip install 'colatent[remote]'" + (" s3fs`" if package == "s3fs" else "`")
    assert run.stderr.rstrip().endswith(remedy)


def test_fsspec_is_imported_only_for_urls():
    code = (
        "import sys, colatent.ingest.nwb.file, colatent.ingest.check, colatent.config.session_table\n"
        "assert 'fsspec' not in sys.modules and 'aiohttp' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_urls_in_the_table_of_sessions_never_become_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_SERVER", "https://host/data")
    rows = "session\tnwb\na\ts3://bucket/a/../x.nwb\nb\t$SOME_SERVER/y.nwb\nc\thttps:/host/z.nwb\n"
    (tmp_path / "sessions.tsv").write_text(rows)
    sessions = load_sessions(tmp_path / "sessions.tsv")
    assert sessions["a"].nwb == "s3://bucket/a/../x.nwb" and sessions["b"].nwb == "https://host/data/y.nwb"
    assert sessions["c"].nwb == tmp_path / "https:/host/z.nwb"
    assert [is_url(sessions[name].nwb) for name in "abc"] == [True, True, False]
    assert not is_url(Path("https://host/x.nwb"))
    (tmp_path / "sessions.tsv").write_text("session\tnwb\na\tfile:///etc/passwd\n")
    with pytest.raises(InputError, match=r"sessions.tsv, line 2: file:///etc/passwd: recordings"):
        load_sessions(tmp_path / "sessions.tsv")


def test_check_reads_urls_and_says_what_is_wrong(served, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where snakemake would run
    content = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    content.pop("simulate", None)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content | {"sessions": "sessions.tsv"}))
    config = load_config(tmp_path / "config.yaml")
    for url, sentence in (
        (served, ""),
        (url_of(server, "none.nwb"), "session 'a': .*no such file on the server"),
        # a name that would mean a simulation, were it a path
        (url_of(server, "x.simulated.nwb"), "session 'a': .*no such file on the server"),
    ):
        (tmp_path / "sessions.tsv").write_text(f"session\tnwb\na\t{url}\n")
        sessions = load_sessions(tmp_path / "sessions.tsv")
        if sentence:
            with pytest.raises(InputError, match=sentence):
                check_inputs(config, sessions)
        else:
            check_inputs(config, sessions)
        run = CliRunner().invoke(app, ["check", str(tmp_path / "config.yaml")])
        assert run.exit_code == (1 if sentence else 0), run.output


@pytest.mark.workflow
def test_snakemake_streams_a_url_and_another_url_reruns_the_ingest(served, server, tmp_path):
    content = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    content.pop("simulate", None)
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump(content | {"sessions": "sessions.tsv", "results": "out"})
    )
    server.content["/y.nwb"] = server.content["/x.nwb"]

    def snakemake(url: str, *more: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "sessions.tsv").write_text(f"session\tnwb\na\t{url}\n")
        project = ("--snakefile", str(ROOT / "Snakefile"), "--cores", "1", "--configfile", "config.yaml")
        return run_snakemake(tmp_path, f"out/a/session/{MARKER}", *more, *project)

    run = snakemake(served)
    assert run.returncode == 0, run.stderr[-4000:]
    check_store(tmp_path / "out/a/session")
    assert read_attrs(tmp_path / "out/a/session")["source"]["file"] == served
    assert not read_attrs(tmp_path / "out/a/session")["simulated"]
    assert "Nothing to be done" in snakemake(served, "--dry-run").stdout
    assert "ingest" in snakemake(url_of(server, "y.nwb"), "--dry-run").stdout
    assert "no such file on the server" in snakemake(url_of(server, "none.nwb")).stderr
