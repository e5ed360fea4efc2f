"""Keys that change with all that a score depends on; a file that survives several writers and refuses to be misread."""

from __future__ import annotations

import math
import multiprocessing
import os

import pytest
import torch

from diffalign.rewards import get
from diffalign.rewards.cache import ScoreCache, content_key
from diffalign.rewards.identity import identity

IMAGE = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
BASE = ("jpeg", IMAGE, "a cat", {"tag": "colors", "include": [{"class": "cat"}]})


def changed(position, value):
    return (*BASE[:position], value, *BASE[position + 1 :])


def test_the_same_question_has_the_same_key():
    again = ("jpeg", IMAGE.clone(), "a cat", {"include": [{"class": "cat"}], "tag": "colors"})
    assert content_key(*BASE) == content_key(*again)


@pytest.mark.parametrize(
    "other",
    [
        changed(0, "jpeg2"),
        changed(1, IMAGE + torch.eye(4) * 1e-7),
        changed(1, IMAGE.double()),
        changed(1, IMAGE.view(3, 2, 8)),
        changed(2, "a cats"),
        changed(3, {**BASE[3], "tag": "position"}),
        changed(3, {**BASE[3], "reference_image": IMAGE}),
        ("jpega", IMAGE, " cat", BASE[3]),
    ],
)
def test_another_question_has_another_key(other):
    assert content_key(*BASE) != content_key(*other)


def test_a_tensor_in_the_metadata_counts_by_its_content():
    one, same, other = (content_key("x", IMAGE, "", {"reference_image": t}) for t in (IMAGE, IMAGE.clone(), IMAGE + 1))
    assert one == same != other


def test_scores_come_back_exactly_and_nan_is_not_kept(tmp_path):
    cache = ScoreCache(tmp_path / "deep" / "er")
    values = {f"key{i}": float(value) for i, value in enumerate(torch.randn(1200))}
    cache.put({**values, "failed": math.nan})
    assert ScoreCache(tmp_path / "deep" / "er" / "scores.sqlite").get([*values, "failed", "unheard"]) == values
    cache.put({"key0": 7.0})
    assert cache.get(["key0"]) == {"key0": values["key0"]}


def test_a_cache_that_is_not_there_knows_nothing_and_makes_nothing(tmp_path):
    assert ScoreCache(tmp_path / "none").get(["a"]) == {} and not (tmp_path / "none").exists()


def test_another_file_is_not_taken_for_a_cache(tmp_path):
    (tmp_path / "mine.txt").write_text("not a database, but long enough to look like one " * 40)
    with pytest.raises(ValueError, match="no cache of scores"):
        ScoreCache(tmp_path / "mine.txt").get(["a"])


def write(path, start):
    cache = ScoreCache(path)
    for i in range(start, start + 15):
        cache.put({f"key{i}": float(i)})


def test_several_processes_may_write(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write, args=(tmp_path, 15 * i)) for i in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert ScoreCache(tmp_path).get([f"key{i}" for i in range(45)]) == {f"key{i}": float(i) for i in range(45)}


def of(spec, **arguments):
    return identity(spec, arguments, get(spec, **arguments))


def test_a_reward_is_told_by_name_arguments_and_the_version_of_who_brought_it(install):
    assert of("jpeg") == of("jpeg")
    assert len({of("jpeg"), of("jpeg", quality=90), of("shapes"), of("jpeg", kind="incompressibility")}) == 4
    source = "from diffalign.rewards import FunctionReward\ndef make(): return FunctionReward(lambda i, p, m: [0.0])\n"
    site = install("elsewhere", "theirs", source)
    before = of("theirs")
    meta = site / "elsewhere-1.0.dist-info" / "METADATA"
    meta.write_text(meta.read_text().replace("Version: 1.0", "Version: 1.1"))
    os.utime(site)
    assert of("theirs") != before and "elsewhere" in before


def test_a_file_is_told_by_its_content(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def score(images, prompts, metadata, table=''):\n    return images.mean((1, 2, 3))\n")
    before = of(f"{path}:score")
    path.write_text(path.read_text() + "# changed\n")
    assert of(f"{path}:score") != before


def test_files_named_in_the_arguments_count_by_their_change(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def score(images, prompts, metadata, table=''):\n    return images.mean((1, 2, 3))\n")
    table = tmp_path / "weights" / "head.safetensors"
    table.parent.mkdir()
    table.write_bytes(b"one")
    for named in (table, table.parent):
        before = of(f"{path}:score", table=str(named))
        table.write_bytes(table.read_bytes() + b"more")
        assert of(f"{path}:score", table=str(named)) != before


def test_an_object_has_no_identity():
    assert identity(lambda images, prompts, metadata: [0.0], {}, get("jpeg")) is None
