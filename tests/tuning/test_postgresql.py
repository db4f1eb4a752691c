"""One study on a PostgreSQL server that four workers share; the server is started and stopped here."""

import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

FIELDS = {
    "name": "bars",
    "task": "images",
    "hidden_size": 8,
    "learning_rate": 0.02,
    "batch_size": 20,
    "epochs": 25,
    "validation": 0.25,
    "space": {"learning_rate": "0.001..0.05 log", "hidden_size": "4..12 step 4"},
}


def binaries():
    """Where initdb and pg_ctl are; Debian keeps them off the path."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    return Path(found[-1] if found else shutil.which("initdb") or "/nowhere/initdb").parent


@pytest.fixture(scope="module")
def server():
    """The URL of an empty database."""
    programs = binaries()
    if not (programs / "initdb").exists():
        pytest.skip("no PostgreSQL server here; Debian's package is called postgresql")
    pytest.importorskip("psycopg")
    # PostgreSQL does not run as root, and its user could not enter pytest's own folders.
    owner = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="unroll-postgresql-") as place:
        if owner:
            shutil.chown(place, "postgres", "postgres")
        secret = Path(place) / "secret"
        secret.write_text("not much of one")
        if owner:
            shutil.chown(secret, "postgres", "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]

        def run(program, *arguments):
            done = subprocess.run(
                [programs / program, "-D", f"{place}/data", *arguments],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                cwd=place,
                **owner,
            )
            assert done.returncode == 0, done.stderr

        run("initdb", "-U", "me", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={place} -c fsync=off"
        run("pg_ctl", "-w", "-l", f"{place}/log", "-o", options, "start")
        try:
            yield f"postgresql://me:not%20much%20of%20one@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-m", "immediate", "stop")


TRIALS = """
    SELECT number, state, value_json FROM trials
    LEFT JOIN trial_user_attributes ON trials.trial_id = trial_user_attributes.trial_id AND key = 'worker' ORDER BY number
"""
SILENT = """
    UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '31 seconds' FROM trials
    WHERE trials.trial_id = trial_heartbeats.trial_id AND trials.number = %s
"""


@pytest.mark.slow
def test_four_workers_share_a_study_and_one_that_is_killed_costs_its_trial_only(server, bars_folder, tmp_path):
    import psycopg

    recipe = tmp_path / "bars.yaml"
    recipe.write_text(yaml.safe_dump({**FIELDS, "data": str(bars_folder)}))
    command = [
        sys.executable,
        "-m",
        "unroll",
        "tune",
        str(recipe),
        "--trials",
        "12",
        "--workers",
        "2",
        "--storage",
        server,
    ]
    leaders = [
        subprocess.Popen(
            [*command, "--out", str(tmp_path / machine / "bars")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for machine in ("one", "two")
    ]
    try:
        with psycopg.connect(server, autocommit=True) as connection:

            def trials():
                try:
                    return connection.execute(TRIALS).fetchall()
                except psycopg.errors.UndefinedTable:  # they are still being made
                    return []

            while True:  # until all four have begun a trial, and one of them runs
                found = trials()
                running = [worker for _, state, worker in found if state == "RUNNING" and worker]
                if running and len({worker for _, _, worker in found if worker}) == 4:
                    break
                with suppress(subprocess.TimeoutExpired):
                    leaders[0].wait(0.02)
                assert all(leader.poll() is None for leader in leaders), [leader.communicate() for leader in leaders]
            unlucky = running[0]
            os.kill(int(unlucky.strip('"').split()[-1]), signal.SIGKILL)
            lost = max(number for number, _, worker in trials() if worker == unlucky)
            # It may have been between two trials; then nothing is lost.
            was_running = next(state for number, state, _ in trials() if number == lost) == "RUNNING"
            connection.execute(SILENT, (lost,))  # as if half a minute had passed without a sign of life
            said = [leader.communicate(timeout=200) for leader in leaders]
            ended = trials()
    finally:
        for leader in leaders:
            leader.kill()  # its workers end with it
    assert [leader.returncode for leader in leaders] == [0, 0], said
    assert sorted(re.sub(r"unroll: \d+ of 12 trials.*\n", "", err) for _, err in said) == [  # a line now and then
        "",
        "unroll: a worker was killed (signal 9); its trial is lost, the others go on\n",
    ]
    finished = [number for number, state, _ in ended if state in ("COMPLETE", "PRUNED")]
    assert len(set(finished)) == len(finished) == 12
    assert all(state == "FAIL" for number, state, _ in ended if number not in finished)
    assert (lost not in finished) == was_running
    # Both machines tell the same.
    told = [[line for line in out.splitlines() if str(tmp_path) not in line] for out, _ in said]
    assert told[0] == told[1]
    assert told[0][0].startswith("12 trials: ")
    assert (tmp_path / "one/bars/best.yaml").read_text() == (tmp_path / "two/bars/best.yaml").read_text()
    assert not (tmp_path / "one/bars/study.db").exists()


def test_a_wrong_password_is_one_line(server, bars_folder, tmp_path):
    recipe = tmp_path / "bars.yaml"
    recipe.write_text(yaml.safe_dump({**FIELDS, "data": str(bars_folder)}))
    wrong = server.replace("not%20much", "nothing")
    done = subprocess.run(
        [sys.executable, "-m", "unroll", "tune", str(recipe), "--storage", wrong, "--out", str(tmp_path / "bars")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert 'password authentication failed for user "me"' in done.stderr
    assert "nothing" not in done.stderr
