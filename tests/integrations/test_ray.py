"""Ray, the real thing, two machines of it: the embedded engine's results to the bit, whatever dies."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from typer.testing import CliRunner

from tikhon.cli.app import app
from tikhon.core.errors import TikhonError
from tikhon.integrations.ray import connected, run_cells
from tikhon.studies.cells import Event, WorkerTraceback

pytestmark = pytest.mark.slow


def square(cell, report):
    report(0.5)
    print("a cell may print")
    time.sleep(0.1)
    node = ray.get_runtime_context().get_node_id()
    return {"square": cell["seed"] ** 2, "process": os.getpid(), "folder": str(Path.cwd()), "node": node}


def surroundings(cell, report):
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)  # must not reach the next cell
    return {"threads": before, "variable": os.environ["OMP_NUM_THREADS"], "hash": hash("a string")}


def dies(cell, report):
    """Its worker of Ray is killed in mid-cell: `times` times in all, then it runs through."""
    deaths = Path(cell["folder"], f"deaths-{cell['seed']}")
    deaths.write_text(deaths.read_text() + "x" if deaths.exists() else "x")
    report(0.25)
    if len(deaths.read_text()) <= cell["times"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"seed": cell["seed"]}


def loses_a_machine(cell, report):
    """The first cell that is not on the machine of the command takes its own machine down."""
    time.sleep(0.2)
    if ray.get_runtime_context().get_node_id() != cell["here"]:
        with suppress(FileExistsError):
            Path(cell["folder"], "down").touch(exist_ok=False)
            os.kill(os.getppid(), signal.SIGKILL)
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


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two machines, as far as Ray can tell."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=2)
    with connected(made.address, cpus=1):
        yield made
    assert not ray.is_initialized()
    assert made.head_node.live_processes(), "what others started goes on"
    made.shutdown()


def test_every_cell_comes_back_with_its_progress_in_workers_that_persist():
    cells = [{"arm": "none", "seed": seed} for seed in range(9)]
    results, events = run(square, cells, jobs=3)
    assert {cell["seed"]: result["square"] for cell, result in results} == {seed: seed**2 for seed in range(9)}
    processes = {result["process"] for _, result in results}
    assert os.getpid() not in processes
    assert {result["folder"] for _, result in results} == {str(Path.cwd())}
    assert len(processes) <= 3
    assert len({result["node"] for _, result in results}) == 2
    for cell in cells:
        assert [event for event in events if event.cell == cell] == [
            Event("started", cell, 0.0),
            Event("progress", cell, 0.5),
            Event("finished", cell, 1.0),
        ]


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


def test_a_killed_worker_costs_one_repetition_of_its_cell(tmp_path):
    cells = [{"arm": "elr", "seed": seed, "folder": str(tmp_path), "times": int(seed == 1)} for seed in range(4)]
    results, events = run(dies, cells, jobs=2)
    assert sorted(result["seed"] for _, result in results) == [0, 1, 2, 3]
    kinds = {seed: [event.kind for event in events if event.cell == cells[seed]] for seed in range(4)}
    assert kinds[1][-4:] == ["retried", "started", "progress", "finished"]
    assert all(kinds[seed] == ["started", "progress", "finished"] for seed in (0, 2, 3))
    assert {seed: len((tmp_path / f"deaths-{seed}").read_text()) for seed in range(4)} == {0: 1, 1: 2, 2: 1, 3: 1}


def test_a_cell_that_kills_twice_is_named(tmp_path):
    cells = [{"arm": "elr+mixup", "seed": 4, "folder": str(tmp_path), "times": 9}]
    with pytest.raises(TikhonError, match=r"arm elr\+mixup, seed 4 died twice \(.*died unexpectedly.*fewer --jobs"):
        run(dies, cells, jobs=1)
    assert (tmp_path / "deaths-4").read_text() == "xx"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("tikhon", r"^labels must lie in \[0, 10\), but sample 7 has 12\.$"),
        ("other", r"^arm elr, seed 3 failed with ZeroDivisionError: division by zero \(.*test_ray.py, line \d+\)$"),
        ("exit", "^arm elr, seed 3 failed with SystemExit: 3"),
        ("unpicklable", "^arm elr, seed 3 failed with .*lambda"),
    ],
)
def test_an_exception_comes_back_with_its_cell_and_traceback(how, message):
    with pytest.raises(TikhonError, match=message) as error:
        run(fails, [{"arm": "elr", "seed": 3, "how": how, "zero": 0}], jobs=1)
    assert isinstance(error.value.__cause__, WorkerTraceback)
    assert "Traceback (most recent call last)" in str(error.value.__cause__)


def test_another_tikhon_or_torch_is_refused(monkeypatch):
    monkeypatch.setattr("tikhon.integrations.ray.versions", lambda: {"tikhon": "0.1.0 (other)", "torch": "1.0"})
    with pytest.raises(TikhonError, match=r"has tikhon .*, torch [2-9]\..*where there is .*\(other\), torch 1\.0\. "):
        run(square, [{"seed": 0}], jobs=1)


def test_a_comparison_has_the_numbers_of_the_embedded_engine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import torch\n\n"
        "def load():\n"
        "    x = torch.randn(90, 4, generator=torch.Generator().manual_seed(0))\n"
        "    return x.numpy(), (x[:, 0] > 0).long().numpy()\n"
    )
    comparison = ["compare", "--data", "mine:load", "--methods", "none,elr+mixup", "--seeds", "2", "--epochs", "2"]
    shown = {}
    for engine in ("local", "ray"):
        done = CliRunner().invoke(app, [*comparison, "--json", "--out", engine, "--engine", engine])
        assert done.exit_code == 0, done.output
        shown[engine] = json.loads(done.stdout)
        for arm in shown[engine]["arms"]:
            del arm["relative_time"]
            for one in arm["seeds"]:
                del one["seconds"]
    sys.modules.pop("mine")
    assert shown["ray"] == shown["local"]


def test_a_lost_machine_costs_its_cells_one_repetition(tmp_path, capfd):
    here = ray.get_runtime_context().get_node_id()
    cells = [{"seed": seed, "here": here, "folder": str(tmp_path)} for seed in range(6)]
    results, events = run(loses_a_machine, cells, jobs=3)
    assert (tmp_path / "down").exists()
    assert sorted(result["seed"] for _, result in results) == list(range(6))
    kinds = [event.kind for event in events]
    assert kinds.count("retried") >= 1
    assert kinds.count("finished") == 6
    assert capfd.readouterr().out == ""  # what Ray has to say of it goes elsewhere
