"""Start, swap and stop."""

import dataclasses
import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trainer.export.conftest import Case
from tests.trainer.export.server.running import SECONDS, RunningServer, read_answer
from trainer.export.golden import ANSWERS, read_golden
from trainer.export.manifest import artefact_id, digest_files, write_manifest

Serve = Callable[..., RunningServer]


def start_and_fail(program: Path, *options: str) -> tuple[int, str]:
    """Exit code and what was said by a server that can't start."""
    done = subprocess.run([str(program), "--port", "0", *options], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr


def change(path: Path) -> None:
    """Another byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_any_changed_file_is_refused_by_its_name(any_case: Case, program: Path, tmp_path: Path) -> None:
    folder = tmp_path / "artefact"
    for original in sorted(any_case.folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(any_case.folder, folder)
        change(folder / original.name)
        code, said = start_and_fail(program, "--artefact", str(folder))
        assert code == 4, (original.name, said)
        assert original.name in said
        assert "Sanitizer" not in said


@pytest.mark.parametrize("damage", ["missing", "longer", "another", "emptied"])
def test_a_file_that_is_not_the_listed_one_is_refused_by_its_name(
    fit_case: Case, two_tower_case: Case, program: Path, tmp_path: Path, damage: str
) -> None:
    folder = Path(shutil.copytree(fit_case.folder, tmp_path / "artefact"))
    file = folder / "user_tower.pt"
    if damage == "missing":
        file.unlink()
    elif damage == "longer":
        with file.open("ab") as opened:
            opened.write(b"\0")
    elif damage == "another":
        shutil.copy(two_tower_case.folder / file.name, file)
    else:
        file.write_bytes(b"")
    code, said = start_and_fail(program, "--artefact", str(folder))
    assert code == 4
    assert file.name in said


def test_an_artefact_is_refused_where_its_modules_answer_otherwise_than_where_it_was_exported(
    any_case: Case, program: Path, tmp_path: Path
) -> None:
    """As they would with a libtorch that computes otherwise; here the golden answers are what differs."""
    folder = Path(shutil.copytree(any_case.folder, tmp_path / "artefact"))
    lines = (folder / ANSWERS).read_text().splitlines()
    body = json.loads(lines[40])
    body["answers"][0]["scores"][-1] += 1e-3
    lines[40] = json.dumps(body)
    (folder / ANSWERS).write_text("\n".join(lines) + "\n")
    changed = dataclasses.replace(any_case.exported.manifest, files=digest_files(folder))
    write_manifest(folder, dataclasses.replace(changed, artefact=artefact_id(changed)))
    code, said = start_and_fail(program, "--artefact", str(folder))
    assert code == 4
    assert f"{ANSWERS}: line 40 is answered here with scores that differ by" in said


def test_a_file_that_is_not_listed_is_refused(fit_case: Case, program: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(fit_case.folder, tmp_path / "artefact"))
    (folder / "item_vectors.old").write_bytes(b"1")
    code, said = start_and_fail(program, "--artefact", str(folder))
    assert code == 4
    assert "item_vectors.old" in said


def test_a_form_that_this_server_does_not_serve_is_refused(t2diff_triton_case: Case, program: Path) -> None:
    code, said = start_and_fail(program, "--artefact", str(t2diff_triton_case.folder))
    assert code == 4
    assert "--tables inside" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--artefact"),
        (("--artefact", "{folder}", "--prot", "1"), "--prot"),
        (("--artefact", "{folder}", "--max-batch", "0"), "--max-batch=0"),
        (("--artefact", "{folder}", "--host", "198.51.100.7"), "198.51.100.7"),
    ],
)
def test_a_command_that_cannot_work_is_a_user_error(
    two_tower_case: Case, program: Path, options: tuple[str, ...], words: str
) -> None:
    code, said = start_and_fail(program, *(option.format(folder=two_tower_case.folder) for option in options))
    assert code == 2
    assert words in said


def test_only_this_machine_can_connect_by_default(two_tower_case: Case, serve: Serve) -> None:
    server = serve(two_tower_case.folder)
    assert server.events()[0]["host"] == "127.0.0.1"
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1", "127.0.1.1"}
    for address in others:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((address, server.port), timeout=5)


def test_health_and_metrics_tell_what_is_served(fit_case: Case, serve: Serve) -> None:
    server, manifest = serve(fit_case.folder), fit_case.exported.manifest
    assert server.get("/healthz").content == {"status": "ok", "artefact": manifest.artefact}
    body, _ = next(read_golden(fit_case.folder))
    for _ in range(3):
        server.post("/v1/score", body)
    page = server.get("/metrics").content
    assert f'artefact="{manifest.artefact}",model="FIT",task="pre_ranking"' in page
    assert f"crosstower_items {manifest.store.num_items}\n" in page
    assert 'crosstower_requests_total{route="/v1/score",status="200"} 3\n' in page
    assert 'crosstower_request_seconds_bucket{route="/v1/score",le="+Inf"} 3\n' in page
    assert page.count("# TYPE") == page.count("# HELP") >= 5


def point(link: Path, folder: Path) -> None:
    """Make `link` a symbolic link to `folder` in one step, as a deployment does."""
    new = link.with_name("new")
    new.symlink_to(folder)
    new.rename(link)


def wait_for_event(server: RunningServer, name: str, *, count: int) -> dict:
    """The log line of the `count`-th event of a name."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found = [event for event in server.events() if event["event"] == name]
        if len(found) >= count:
            return found[count - 1]
        time.sleep(0.02)
    raise AssertionError(f"no {count} events {name} in {SECONDS} s:\n{server.log.read_text()}")


class Load(threading.Thread):
    """Asks the same of a server until it is told to stop."""

    def __init__(self, server: RunningServer, body: dict) -> None:
        super().__init__()
        self.server, self.body = server, json.dumps(body)
        self.answers: list[dict] = []
        self.errors: list[object] = []
        self.enough = threading.Event()

    def run(self) -> None:
        connection = self.server.connect()
        try:
            while not self.enough.is_set():
                connection.request("POST", "/v1/score", self.body)
                status, content, _ = read_answer(connection)
                (self.answers if status == 200 else self.errors).append(content)
        except OSError as error:
            self.errors.append(error)
        finally:
            connection.close()


def test_a_swap_under_load_loses_no_request_and_mixes_no_answer(
    fit_case: Case, two_tower_case: Case, serve: Serve, tmp_path: Path
) -> None:
    link = tmp_path / "current"
    folders = {case.exported.manifest.artefact: case.folder for case in (fit_case, two_tower_case)}
    point(link, fit_case.folder)
    server = serve(link, "--keep-alive-s", "60")  # a client of a busy machine may pause for longer than the tests' second
    body, _ = next((body, answer) for body, answer in read_golden(fit_case.folder) if len(body["requests"]) == 7)
    expected = {}
    loads = [Load(server, body) for _ in range(3)]
    for load in loads:
        load.start()
    for swap, folder in enumerate([two_tower_case.folder, fit_case.folder] * 3, start=1):
        time.sleep(0.1)
        point(link, folder)
        server.signal(signal.SIGHUP)
        wait_for_event(server, "swap", count=swap)
    for load in loads:
        load.enough.set()
    for load in loads:
        load.join(SECONDS)
        assert load.errors == []
    for answer in (answer for load in loads for answer in load.answers):
        assert expected.setdefault(answer["artefact"], answer["answers"]) == answer["answers"]
    assert set(expected) == set(folders)
    assert 'crosstower_swaps_total{result="ok"} 6\n' in server.get("/metrics").content


def test_a_damaged_artefact_is_not_swapped_in(fit_case: Case, two_tower_case: Case, serve: Serve, tmp_path: Path) -> None:
    link, damaged = tmp_path / "current", Path(shutil.copytree(two_tower_case.folder, tmp_path / "damaged"))
    change(damaged / "scorer.pt")
    point(link, fit_case.folder)
    server = serve(link)
    for attempt, folder in enumerate([damaged, tmp_path / "nowhere"], start=1):
        point(link, folder)
        server.signal(signal.SIGHUP)
        event = wait_for_event(server, "swap_failed", count=attempt)
        assert "scorer.pt" in event["error"] or "no such folder" in event["error"]
        assert server.get("/healthz").content["artefact"] == fit_case.exported.manifest.artefact
    assert 'crosstower_swaps_total{result="failed"} 2\n' in server.get("/metrics").content


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_what_has_begun_and_takes_nothing_new(fit_case: Case, serve: Serve, number: signal.Signals) -> None:
    server = serve(fit_case.folder)
    body = next(body for body, _ in read_golden(fit_case.folder) if len(body["requests"]) == 256)
    text = json.dumps(body).encode()
    connection = server.connect()
    connection.putrequest("POST", "/v1/score")
    connection.putheader("Content-Length", str(len(text)))
    connection.endheaders(text[:1000])
    time.sleep(0.2)  # the rest comes after the signal
    server.signal(number)
    wait_for_event(server, "stop", count=1)
    connection.send(text[1000:])
    status, content, _ = read_answer(connection)
    connection.close()
    assert status == 200
    assert len(content["answers"]) == 256
    assert server.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=5)
    assert server.events()[-1]["event"] == "exit"
