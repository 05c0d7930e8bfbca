"""The activation store, proved with real files and real processes that are really killed."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from warmstart.core.errors import BadOption
from warmstart.engine import shelf as shelf_module
from warmstart.engine.activations import Key, Store, content_key, default_root
from warmstart.engine.pairs import RECORD
from warmstart.engine.shelf import Shelf

KEY = Key("minilm", "cut3", "bfloat16", "wordpiece-128")
WIDTH = 8


def keys(*numbers: int) -> list[bytes]:
    return [content_key(str(n).encode()) for n in numbers]


def value(number: int, *, dtype: torch.dtype = torch.float32, rows: int | None = None) -> torch.Tensor:
    """What the frozen layers give for example ``number``: as many rows as they like, always the same ones."""
    n_rows = 1 + number % 5 if rows is None else rows
    return torch.randn(n_rows, WIDTH, generator=torch.Generator().manual_seed(number)).to(dtype)


def open_shelf(root: Path, *, limit: int = 2**30, key: Key = KEY) -> Shelf:
    return Store(root, limit).shelf(key, WIDTH, torch.float32)


def fill(shelf: Shelf, *numbers: int) -> list[int]:
    """The caller's pattern; gives the numbers that had to be computed."""
    wanted = keys(*numbers)
    todo = shelf.missing(wanted)
    shelf.put([wanted[i] for i in todo], [value(numbers[i]) for i in todo])
    return [numbers[i] for i in todo]


def assert_holds(shelf: Shelf, *numbers: int) -> None:
    for number, got in zip(numbers, shelf.get(keys(*numbers)), strict=True):
        assert torch.equal(got, value(number)), number


def only(root: Path, suffix: str) -> Path:
    (path,) = root.rglob(f"*{suffix}")
    return path


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


# --- what is stored -----------------------------------------------------------------------------------------------------------------


def test_a_new_row_costs_one_row(tmp_path: Path) -> None:
    assert fill(open_shelf(tmp_path), 1, 2, 3, 2, 1) == [1, 2, 3]
    before = Store(tmp_path).usage()[0]
    assert before.examples == 3
    again = open_shelf(tmp_path)
    assert fill(again, 3, 9, 2, 1) == [9]
    after = Store(tmp_path).usage()[0]
    assert after.examples == 4
    assert after.bytes - before.bytes == value(9).nbytes + RECORD.itemsize
    assert_holds(again, 1, 2, 3, 9)


def test_what_is_known_is_not_stored_again(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    shelf.put(keys(1, 1), [value(1), value(1)])
    shelf.put(keys(1), [value(1)])
    assert only(tmp_path, ".data").read_bytes() == value(1).numpy().tobytes()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_ragged_items_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    values = [value(n, dtype=dtype, rows=n) for n in (3, 1, 0, 7)]
    values[0][0, :4] = torch.tensor([float("nan"), -0.0, float("inf"), 1e-7])
    wanted = keys(3, 1, 0, 7)
    first = Store(tmp_path).shelf(KEY, WIDTH, dtype)
    first.put(wanted, values)
    for shelf in (first, Store(tmp_path).shelf(KEY, WIDTH, dtype)):
        assert shelf.missing(wanted) == []
        assert shelf.rows(wanted).tolist() == [3, 1, 0, 7]
        for got, put in zip(shelf.get(wanted[::-1]), values[::-1], strict=True):
            assert got.dtype == dtype
            assert got.shape == put.shape
            assert bytes(got.view(torch.uint8).numpy()) == bytes(put.view(torch.uint8).numpy())


def test_the_data_file_is_the_raw_rows_and_nothing_else(tmp_path: Path) -> None:
    fill(open_shelf(tmp_path), 4, 2)
    assert only(tmp_path, ".data").read_bytes() == torch.cat([value(4), value(2)]).numpy().tobytes()
    assert only(tmp_path, ".index").stat().st_size == 2 * RECORD.itemsize


def test_gather_gives_one_tensor_in_the_order_asked_for(tmp_path: Path) -> None:
    shelf = Store(tmp_path, 40_000).shelf(KEY, (2, 4), torch.bfloat16)  # rotates every 5,000 bytes
    values = torch.randn(1000, 1, 2, 4, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    wanted = keys(*range(1000))
    for start in range(0, 800, 50):
        shelf.put(wanted[start : start + 50], list(values[start : start + 50]))
    order = torch.randperm(800, generator=torch.Generator().manual_seed(1)).tolist()
    got = shelf.gather([wanted[i] for i in order])
    assert len(list(tmp_path.rglob("*.data"))) > 3
    assert got.shape == (800, 2, 4)
    assert torch.equal(got, values[order, 0])
    got.zero_()  # a copy: what is stored stays
    assert torch.equal(shelf.gather(wanted[:1]), values[0])


def test_gather_refuses_items_of_several_rows(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    shelf.put(keys(1, 2), [value(1, rows=1), value(2, rows=3)])
    with pytest.raises(ValueError, match="1 of 2"):
        shelf.gather(keys(1, 2))


def test_other_precision_width_or_cut_is_another_shelf(tmp_path: Path) -> None:
    fill(open_shelf(tmp_path), 1)
    store = Store(tmp_path)
    others = [
        store.shelf(Key("minilm", "cut2", "bfloat16", "wordpiece-128"), WIDTH, torch.float32),
        store.shelf(KEY, WIDTH, torch.bfloat16),
        store.shelf(KEY, 2 * WIDTH, torch.float32),
    ]
    assert [shelf.missing(keys(1)) for shelf in others] == [[0]] * 3


def test_unknown_keys_and_wrong_values_are_refused(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    with pytest.raises(KeyError) as caught:
        shelf.get(keys(1))
    assert caught.value.args == tuple(keys(1))
    for bad in (value(1)[:, :4], value(1).double(), value(1)[0]):
        with pytest.raises(ValueError, match="expected 16 bytes"):
            shelf.put(keys(1), [bad])
    with pytest.raises(ValueError, match="expected 16 bytes"):
        shelf.put([b"short"], [value(1)])
    assert shelf.get([]) == []
    assert not tmp_path.exists() or not list(tmp_path.iterdir())  # nothing is made before it is needed


def test_the_index_in_memory_is_modest(tmp_path: Path) -> None:
    n = 20_000
    wanted, values = keys(*range(n)), torch.arange(n, dtype=torch.float32).reshape(n, 1, 1)
    Store(tmp_path).shelf(KEY, 1, torch.float32).put(wanted, list(values))
    shelf = Store(tmp_path).shelf(KEY, 1, torch.float32)
    tracemalloc.start()
    assert shelf.missing(wanted) == []
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / n < 300
    assert torch.equal(shelf.gather(wanted), values[:, 0])


# --- memory mapping -----------------------------------------------------------------------------------------------------------------


def resident_file_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[2]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux counts resident file pages there")
def test_only_what_is_asked_for_becomes_resident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = torch.zeros(250, 1024)  # 1 MB
    wanted = keys(*range(60))
    Store(tmp_path, 2**30).shelf(KEY, 1024, torch.float32).put(wanted, [block] * 60)
    shelf = Store(tmp_path, 2**30).shelf(KEY, 1024, torch.float32)
    before = resident_file_bytes()
    assert shelf.missing(wanted[30:32]) == []
    shelf.get(wanted[30:32])
    assert resident_file_bytes() - before < 8e6
    monkeypatch.setattr(shelf_module, "MOST_RESIDENT_BYTES", 10 * 2**20)
    for start in range(0, 60, 2):  # a whole epoch
        shelf.get(wanted[start : start + 2])
    assert resident_file_bytes() - before < 20e6


# --- several processes, and their end -----------------------------------------------------------------------------------------------

WRITERS = """
import json, os, sys, traceback
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_activations import write
for line in sys.stdin:
    command, children = json.loads(line), []
    for arguments in command:
        children.append(os.fork())
        if not children[-1]:
            try:
                write(*arguments)
                os._exit(0)
            finally:
                traceback.print_exc()
                os._exit(1)
    print(json.dumps(children or [os.wait()[1] for _ in range(running)]), flush=True)
    running = len(children)
"""
BATCH = 25


Work = tuple[str, int, int, bool]
"""Root, first number, last number, and whether to fork after the first batch: both then go on with the same open shelf."""
Writers = Callable[[list[Work]], list[int]]


def write(root: str, first: int, last: int, forks: bool) -> None:
    """What a writer process does."""
    shelf, child = open_shelf(Path(root) / "store"), 0
    acknowledged = os.open(Path(root) / f"acknowledged-{first}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for number in range(first, last, BATCH):
        if forks and number == first + BATCH:
            child = os.fork()
        fill(shelf, *range(number, number + BATCH))
        os.write(acknowledged, b"%d\n" % (number + BATCH))
    fill(shelf, 10**9 + os.getpid())  # each process has something to write, even when the others were there first with all the rest
    if child:
        os.waitpid(child, 0)


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    """Starts writer processes and gives their ids; given none, waits and gives their exit statuses.

    They are forked from one process, because importing torch is most of the time that a process takes.
    """
    command = [sys.executable, "-c", WRITERS, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        requests, answers = process.stdin, process.stdout
        assert requests
        assert answers

        def ask(what: list[Work]) -> list[int]:
            requests.write(json.dumps(what).encode() + b"\n")
            requests.flush()
            answer: list[int] = json.loads(answers.readline())
            return answer

        yield ask


def test_writers_at_once_share_one_shelf(tmp_path: Path, writers: Writers) -> None:
    mine = open_shelf(tmp_path / "store")
    assert fill(mine, 0, 1) == [0, 1]
    writers([(str(tmp_path), 0, 300, True), (str(tmp_path), 150, 450, True)])
    assert writers([]) == [0, 0]
    assert mine.missing(keys(*range(450))) == []  # an open shelf sees what others have added
    assert_holds(mine, *range(450))
    assert mine.damaged == 0
    assert len(list(tmp_path.rglob("*.data"))) == 5  # two writers, two forked from them, and this process: never two to a file


def test_kill_minus_nine_loses_at_most_the_batch_in_flight(tmp_path: Path, writers: Writers) -> None:
    delays = np.random.default_rng(0)
    for first in range(0, 40_000_000, 10_000_000):
        (writer,) = writers([(str(tmp_path), first, first + 50_000, False)])
        acknowledged = tmp_path / f"acknowledged-{first}"
        while not acknowledged.exists() or not acknowledged.read_bytes():
            time.sleep(0.001)
        time.sleep(delays.uniform(0, 0.15))
        os.kill(writer, signal.SIGKILL)
        assert writers([]) == [signal.SIGKILL]
        end = max(int(line) for line in acknowledged.read_bytes().splitlines())
        shelf = open_shelf(tmp_path / "store")
        assert shelf.missing(keys(*range(first, end))) == []
        assert_holds(shelf, *range(first, end))
        assert shelf.damaged == 0
        assert fill(shelf, first, first + 9_000_000) == [first + 9_000_000]  # and the store goes on


# --- damage -------------------------------------------------------------------------------------------------------------------------


def test_a_flipped_byte_in_the_data_costs_that_example(tmp_path: Path) -> None:
    fill(open_shelf(tmp_path), 0, 5, 10, 15)  # one row each
    flip(only(tmp_path, ".data"), 2 * WIDTH * 4 + 3)
    with pytest.raises(KeyError):
        open_shelf(tmp_path).get(keys(10))
    shelf = open_shelf(tmp_path)
    assert fill(shelf, 0, 5, 10, 15) == [10]
    assert shelf.damaged == 1
    assert_holds(shelf, 0, 5, 10, 15)
    later = open_shelf(tmp_path)
    assert later.missing(keys(0, 5, 10, 15)) == []  # the sound copy is found behind, or before, the damaged one
    assert_holds(later, 10)


def test_an_older_sound_copy_takes_the_place_of_a_damaged_one(tmp_path: Path) -> None:
    open_shelf(tmp_path).put(keys(1), [value(1)])
    reader = open_shelf(tmp_path)
    assert reader.missing(keys(1)) == []
    first = only(tmp_path, ".data")
    open_shelf(tmp_path).put(keys(1), [value(1)])  # as a writer does that works at the same time
    (second,) = set(tmp_path.rglob("*.data")) - {first}
    flip(second, 0)
    assert reader.missing(keys(1, 2)) == [1]
    assert reader.damaged == 1
    assert_holds(reader, 1)


def test_a_flipped_byte_in_the_index_costs_that_example(tmp_path: Path) -> None:
    for at in range(0, RECORD.itemsize, 5):
        root = tmp_path / str(at)
        fill(open_shelf(root), 1, 2, 3)
        flip(only(root, ".index"), RECORD.itemsize + at)
        shelf = open_shelf(root)
        assert fill(shelf, 1, 2, 3) == [2]
        assert_holds(shelf, 1, 2, 3)


@pytest.mark.parametrize("cut", [1, RECORD.itemsize - 1, RECORD.itemsize, RECORD.itemsize + 1])
def test_a_torn_index_loses_its_tail(tmp_path: Path, cut: int) -> None:
    fill(open_shelf(tmp_path), 1, 2, 3)
    index = only(tmp_path, ".index")
    index.write_bytes(index.read_bytes()[:-cut])
    assert fill(open_shelf(tmp_path), 1, 2, 3) == ([3] if cut <= RECORD.itemsize else [2, 3])


def test_truncated_data_loses_what_is_gone(tmp_path: Path) -> None:
    fill(open_shelf(tmp_path), 1, 2, 3)
    data = only(tmp_path, ".data")
    data.write_bytes(data.read_bytes()[:-1])
    shelf = open_shelf(tmp_path)
    assert fill(shelf, 1, 2, 3) == [3]
    assert_holds(shelf, 1, 2, 3)


def test_rubbish_is_ignored(tmp_path: Path) -> None:
    fill(open_shelf(tmp_path), 1, 2)
    index = only(tmp_path, ".index")
    index.write_bytes(index.read_bytes() + np.random.default_rng(0).bytes(3 * RECORD.itemsize + 5))
    (index.parent / "noise.index").write_bytes(bytes(400))
    (index.parent / "noise.txt").write_text("not ours")
    (index.parent / "about.json").write_text("{")
    assert open_shelf(tmp_path).missing(keys(1, 2, 3)) == [2]
    assert Store(tmp_path).usage()[0].about == {}


def test_a_record_that_is_still_arriving_is_read_when_it_is_whole(tmp_path: Path) -> None:
    fill(open_shelf(tmp_path), 1, 2)
    index = only(tmp_path, ".index")
    whole = index.read_bytes()
    for partly in (whole[:-9], whole[:-9] + bytes(9)):
        index.write_bytes(partly)
        shelf = open_shelf(tmp_path)
        assert shelf.missing(keys(1, 2)) == [1]
        index.write_bytes(whole + whole[:5])
        assert shelf.missing(keys(1, 2)) == []


def test_files_that_vanish_are_missing_and_no_more(tmp_path: Path) -> None:
    fill(open_shelf(tmp_path), 1, 2)
    reader, mapped, writing = open_shelf(tmp_path), open_shelf(tmp_path), open_shelf(tmp_path)
    reader._refresh()
    mapped.missing(keys(1, 2))
    fill(writing, 3)
    shutil.rmtree(tmp_path)
    assert_holds(mapped, 1, 2)  # what is mapped stays readable
    assert fill(reader, 1, 2) == [1, 2]
    assert fill(writing, 3, 4) == [4]
    assert_holds(writing, 3, 4)


# --- room ---------------------------------------------------------------------------------------------------------------------------


def stored_bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.suffix in (".data", ".index"))


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    limit = 40_000
    for batch in range(3):  # three pairs of 9 KB, used at times 0, 1, 2
        shelf = open_shelf(tmp_path, limit=10**6)
        shelf.put(keys(batch), [value(batch, rows=280)])
        shelf.close()
        os.utime(sorted(tmp_path.rglob("*.index"), key=lambda path: path.stat().st_ctime_ns)[-1], (batch + 1, batch + 1))
        os.utime(sorted(tmp_path.rglob("*.data"), key=lambda path: path.stat().st_ctime_ns)[-1], (batch + 1, batch + 1))
    used_again = open_shelf(tmp_path, limit=limit)
    used_again.get(keys(0))
    used_again.close()
    for number in (10, 11):
        shelf = open_shelf(tmp_path, limit=limit)
        shelf.put(keys(number), [value(number, rows=280)])
        shelf.close()
        assert stored_bytes(tmp_path) <= limit
    assert open_shelf(tmp_path, limit=limit).missing(keys(0, 1, 2, 10, 11)) == [1]


def test_the_limit_holds_across_shelves(tmp_path: Path) -> None:
    limit = 100_000
    for number in range(60):
        shelf = open_shelf(tmp_path, limit=limit, key=Key("b", f"cut{number % 3}", "float32", "p"))
        shelf.put(keys(number), [value(number, rows=200)])
        shelf.close()
        assert stored_bytes(tmp_path) <= limit
    assert stored_bytes(tmp_path) > limit / 2
    assert shelf.missing(keys(59)) == []


def test_what_is_in_use_is_never_evicted(tmp_path: Path) -> None:
    limit = 50_000
    using = open_shelf(tmp_path, limit=limit)
    for number in range(4):
        using.put(keys(number), [value(number, rows=250)])
    other = Store(tmp_path, limit)
    shelf = other.shelf(KEY, WIDTH, torch.float32)
    for number in range(10, 14):  # no room, and nothing that may go
        shelf.put(keys(number), [value(number, rows=250)])
    assert other.full
    assert stored_bytes(tmp_path) <= limit
    assert using.missing(keys(*range(4))) == []
    assert torch.equal(shelf.get(keys(13))[0], value(13, rows=250))  # in memory
    assert Store(tmp_path, limit).clear() == 0
    using.close()
    shelf.close()
    assert open_shelf(tmp_path).missing(keys(0)) == []
    fresh = Store(tmp_path, limit)
    fresh.shelf(KEY, WIDTH, torch.float32).put(keys(20), [value(20, rows=250)])
    assert not fresh.full


def test_what_is_only_read_is_not_cleared_either(tmp_path: Path) -> None:
    fill(open_shelf(tmp_path), 1, 2)
    reader = open_shelf(tmp_path)
    assert_holds(reader, 1, 2)
    assert Store(tmp_path).clear() == 0
    assert open_shelf(tmp_path).missing(keys(1, 2)) == []
    reader.close()
    assert Store(tmp_path).clear() > 0


def test_a_full_disk_does_not_fail_the_run(tmp_path: Path) -> None:
    store = Store(tmp_path, 2**30)
    shelf = store.shelf(KEY, WIDTH, torch.float32)
    fill(shelf, *range(50))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # writing past it gives EFBIG in the middle of a batch
    try:
        for start in range(50, 600, 50):
            assert fill(shelf, *range(start, start + 50)) == list(range(start, start + 50))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.full
    assert len(store.warnings) == 1
    assert "File too large" in store.warnings[0]
    assert_holds(shelf, *range(600))
    assert shelf.missing(keys(*range(600))) == []
    later = open_shelf(tmp_path)
    assert later.missing(keys(*range(600)))[0] >= 50  # what was whole is kept, nothing else is believed
    assert later.damaged == 0


def test_a_folder_that_cannot_be_written_does_not_fail_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "activations", 2**30)
    shelf = store.shelf(KEY, WIDTH, torch.float32)
    assert fill(shelf, 1, 2) == [1, 2]
    assert_holds(shelf, 1, 2)
    assert store.full
    assert store.usage() == []


# --- what `warmstart cache` uses ----------------------------------------------------------------------------------------------------


def test_usage_and_clear(tmp_path: Path) -> None:
    store = Store(tmp_path)
    shelf = store.shelf(KEY, WIDTH, torch.float32)
    fill(shelf, 1, 2, 3)
    shelf.close()
    (usage,) = store.usage()
    assert usage.digest.startswith(KEY.digest)
    assert usage.about == {
        "backbone": "minilm",
        "what": "cut3",
        "precision": "bfloat16",
        "preprocessing": "wordpiece-128",
        "width": [WIDTH],
        "dtype": "float32",
    }
    assert (usage.bytes, usage.examples) == (stored_bytes(tmp_path), 3)
    assert abs(usage.last_used - time.time()) < 60
    assert store.clear() == usage.bytes
    assert store.usage() == []
    assert fill(shelf, 1) == [1]  # an open shelf goes on


def test_the_limit_is_written_down_and_applied(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    fill(shelf, *range(100))
    shelf.close()
    assert Store(tmp_path).limit > 10**6  # a share of the disk
    Store(tmp_path).set_limit(1000)
    assert stored_bytes(tmp_path) == 0
    assert Store(tmp_path).limit == 1000
    assert Store(tmp_path, 5).limit == 5
    with pytest.raises(BadOption, match="-1 bytes"):
        Store(tmp_path).set_limit(-1)
    (tmp_path / "limit.json").write_text(json.dumps([1]))
    assert Store(tmp_path).limit > 10**6


def test_where_the_store_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("WARMSTART_CACHE", raising=False)
    assert default_root() == tmp_path / "xdg" / "warmstart" / "activations"
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "own"))
    assert Store().root == tmp_path / "own" / "activations"
