"""The pool of worker processes: every cell comes back, whatever dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tikhon.core.errors import TikhonError
from tikhon.studies.cells import Event, WorkerTraceback
from tikhon.studies.workers import run_cells

unix = pytest.mark.skipif(os.name == "nt", reason="signals of Unix")


def square(cell, report):
    report(0.5)
    print("a cell may print")
    return {"square": cell["seed"] ** 2, "process": os.getpid(), "parent": os.getppid()}


def surroundings(cell, report):
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)  # must not reach the next cell
    return {"threads": before, "variable": os.environ["OMP_NUM_THREADS"], "hash": hash("a string")}


def dies(cell, report):
    """Killed in mid-cell as by the system when memory runs out: `times` times in all, then it runs through."""
    deaths = Path(cell["folder"], f"deaths-{cell['seed']}")
    deaths.write_text(deaths.read_text() + "x" if deaths.exists() else "x")
    report(0.25)
    if len(deaths.read_text()) <= cell["times"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"seed": cell["seed"]}


def fails(cell, report):
    match cell["how"]:
        case "tikhon":
            raise TikhonError("labels must lie in [0, 10), but sample 7 has 12.")
        case "other":
            return {"metric": 1 / cell["zero"]}
        case "exit":
            sys.exit(3)
        case "unpicklable":
            return {"metric": lambda: 0.5}


def run(function, cells, **arguments):
    results, events = [], []
    run_cells(
        function,
        cells,
        on_result=lambda cell, result: results.append((cell, result)),
        on_event=events.append,
        **arguments,
    )
    return results, events


def kinds(events, cell):
    return [event.kind for event in events if event.cell == cell]


def test_every_cell_comes_back_with_its_progress_in_other_processes(capfd):
    cells = [{"arm": "none", "seed": seed} for seed in range(9)]
    variable = os.environ.get("OPENBLAS_NUM_THREADS")
    results, events = run(square, cells, jobs=2)
    assert {cell["seed"]: result["square"] for cell, result in results} == {seed: seed**2 for seed in range(9)}
    processes = {result["process"] for _, result in results}
    assert os.getpid() not in processes
    assert len(processes) <= 2  # workers persist
    assert {result["parent"] for _, result in results} == {os.getpid()}
    for cell in cells:
        assert [event for event in events if event.cell == cell] == [
            Event("started", cell, 0.0),
            Event("progress", cell, 0.5),
            Event("finished", cell, 1.0),
        ]
    assert os.environ.get("OPENBLAS_NUM_THREADS") == variable
    assert not any(map(alive, processes))
    output = capfd.readouterr()
    assert output.out == ""  # standard output stays the parent's
    assert output.err == "a cell may print\n" * 9


def test_a_worker_has_the_threads_it_was_given_in_every_cell_and_one_order_of_sets():
    results, _ = run(surroundings, [{"seed": seed} for seed in range(3)], jobs=1, threads=2)
    assert [(result["threads"], result["variable"]) for _, result in results] == [(2, "2")] * 3
    expected = subprocess.run(
        [sys.executable, "-c", "print(hash('a string'))"],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        check=True,
    )
    assert {result["hash"] for _, result in results} == {int(expected.stdout)}


@unix
def test_a_killed_worker_costs_one_repetition_of_its_cell(tmp_path):
    cells = [{"arm": "elr", "seed": seed, "folder": str(tmp_path), "times": int(seed == 1)} for seed in range(4)]
    results, events = run(dies, cells, jobs=2)
    assert sorted(result["seed"] for _, result in results) == [0, 1, 2, 3]
    assert kinds(events, cells[1]) == ["started", "progress", "retried", "started", "progress", "finished"]
    for cell in (cells[0], cells[2], cells[3]):
        assert kinds(events, cell) == ["started", "progress", "finished"]
    assert {seed: len((tmp_path / f"deaths-{seed}").read_text()) for seed in range(4)} == {0: 1, 1: 2, 2: 1, 3: 1}


@unix
def test_a_cell_that_kills_twice_is_named(tmp_path):
    cells = [{"arm": "elr+mixup", "seed": 4, "folder": str(tmp_path), "times": 9}]
    with pytest.raises(TikhonError, match=r"arm elr\+mixup, seed 4 died twice \(signal 9, .*\).*fewer --jobs"):
        run(dies, cells, jobs=1)
    assert (tmp_path / "deaths-4").read_text() == "xx"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("tikhon", r"^labels must lie in \[0, 10\), but sample 7 has 12\.$"),
        ("other", r"^arm elr, seed 3 failed with ZeroDivisionError: division by zero \(.*test_workers.py, line \d+\)$"),
        ("exit", "^arm elr, seed 3 failed with SystemExit: 3"),
        ("unpicklable", "^arm elr, seed 3 failed with .*lambda"),
    ],
)
def test_an_exception_comes_back_with_its_cell_and_traceback(how, message):
    with pytest.raises(TikhonError, match=message) as error:
        run(fails, [{"arm": "elr", "seed": 3, "how": how, "zero": 0}], jobs=1)
    assert isinstance(error.value.__cause__, WorkerTraceback)
    assert "Traceback (most recent call last)" in str(error.value.__cause__)
    if how != "unpicklable":
        assert "in fails" in str(error.value.__cause__)


def test_an_exception_in_the_callback_passes_on_and_ends_the_workers():
    processes = []

    def on_result(cell, result):
        processes.append(result["process"])
        raise KeyError("full")

    with pytest.raises(KeyError, match="full"):
        run_cells(square, [{"seed": seed} for seed in range(50)], jobs=2, on_result=on_result)
    assert len(processes) == 1
    assert not alive(processes[0])


@pytest.mark.parametrize("arguments", [{"jobs": 0}, {"jobs": -1}, {"jobs": 1, "threads": 0}])
def test_a_senseless_number_of_processes_is_refused(arguments):
    with pytest.raises(TikhonError, match="at least 1"):
        run(square, [{"seed": 0}], **arguments)


def test_a_function_that_workers_cannot_import_is_refused():
    with pytest.raises(TikhonError, match="top level of a module"):
        run(lambda cell, report: {}, [{"seed": 0}], jobs=1)


def test_no_cells_need_no_worker():
    assert run(square, [], jobs=2) == ([], [])


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    try:  # without an init that collects them, the dead of a dead parent stay as zombies
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc/self").exists()


# A comparison in a session of its own, whose two workers compute for ever in Python and for ever in one call to C.
PARENT = """
import os, sys, time
from tikhon.studies.workers import run_cells

def endless(cell, report):
    print(os.getpid(), flush=True)
    while cell["seed"]:
        pass
    time.sleep(10_000)

if __name__ == "__main__":
    run_cells(endless, [{"seed": 0}, {"seed": 1}], jobs=2, on_result=print)
"""


@pytest.fixture
def comparison(tmp_path):
    """(process, ids of its two workers, its standard error so far)."""
    script = tmp_path / "comparison.py"
    script.write_text(PARENT)
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        workers = [int(process.stderr.readline()) for _ in range(2)]
        yield process, workers
        process.kill()


def wait_until_gone(processes):
    deadline = time.monotonic() + 30
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, processes)), "orphans"


@unix
def test_a_killed_parent_leaves_no_orphans(comparison):
    parent, workers = comparison
    assert all(map(alive, workers))
    parent.kill()
    parent.wait()
    wait_until_gone(workers)


@unix
def test_ctrl_c_ends_all_and_only_the_parent_speaks(comparison):
    parent, workers = comparison
    os.killpg(parent.pid, signal.SIGINT)  # what a terminal does
    errors = parent.stderr.read()
    assert parent.wait() == -signal.SIGINT
    wait_until_gone(workers)
    assert errors.count("Traceback (most recent call last)") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")


@unix
def test_ctrl_c_while_workers_start_is_as_quiet(tmp_path):
    script = tmp_path / "comparison.py"
    # A worker imports this file before it serves: there it presses Ctrl-C, for itself first.
    script.write_text(
        "import os, signal, time\n"
        "if __name__ != '__main__':\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(0.2)\n"
        "    os.killpg(0, signal.SIGINT)\n" + PARENT
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, start_new_session=True, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGINT
    assert done.stderr.count("Traceback (most recent call last)") == 1
