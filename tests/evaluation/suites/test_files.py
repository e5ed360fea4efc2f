"""Prompt files of each suite: what is read, what is refused, and by which message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffalign.evaluation import suites
from diffalign.evaluation.judges import Judges

DPG = """item_id,text,proposition_id,dependency,category_broad,tuple,question_natural_language
a,prompt a,1,0,entity,entity - whole (dog),Is there a dog?
b,"prompt b, long",1,0,entity,entity - whole (cat),Is there a cat?
b,"prompt b, long",2,1,attribute,"attribute - color (cat, red)",Is the cat red?
"""
HRS_COUNTING = """meta_prompt,vanilla_prompt,n1,obj1,n2,obj2,synthetic_prompt
Describe 2 cups,2 cup,2,cup,0,,two cups on a table
Describe 2 dogs and 1 cat,2 dog and 1 cat,2,dog,1,cat,two dogs and a cat
Describe 5 and 4 dogs,5 dog and 4 dog,5,dog,4,dog,
left over,1 dog,1,dog,0,,a dog
"""
HRS_SPATIAL = """meta_prompt,obj1,obj2,obj3,obj4,rel1,rel2,synthetic_prompt
a horse below a car.,horse,car,,,below,,
a car among dog and cat.,car,dog,cat,,among,,
a dog and cat on a car and below a horse.,dog,cat,car,horse,on,below,
"""
PARTI = "Prompt\tCategory\tChallenge\tNote\na robot\tArtifacts\tBasic\t\nbond\tAbstract\tBasic\t\n"
GENEVAL2 = {"prompt": "a pig", "atom_count": 3, "vqa_list": [["How many pigs are there?", "one"]], "skills": ["count"]}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_dpg_reads_its_table_as_released_and_mended(tmp_path):
    path = write(tmp_path, "dpg_bench.csv", DPG)
    assert [record.prompt for record in suites.get("dpg").read(path)] == ["prompt b, long"]
    lines = suites.get("dpg_mended").read_lines(path, Judges())
    assert [line["item"] for line in lines] == ["a", "b"]
    assert lines[1]["questions"][1].category == "attribute - color"


def test_hrs_reads_levels_and_written_prompts(tmp_path):
    suite = suites.get("hrs_counting")
    lines = suite.read_lines(write(tmp_path, "counting.csv", HRS_COUNTING), Judges())
    assert [(line["prompt"], line["task"]) for line in lines] == [
        ("two cups on a table", "easy"), ("two dogs and a cat", "medium"), ("5 dog and 4 dog", "hard"),
    ]  # fmt: skip
    assert [line["wanted"] for line in lines] == [{"cup": 2}, {"dog": 2, "cat": 1}, {"dog": 4}]
    lines = suites.get("hrs_spatial").read_lines(write(tmp_path, "spatial.csv", HRS_SPATIAL), Judges())
    assert [line["relations"] for line in lines] == [["below"], ["among"], ["on", "below"]]
    assert lines[2]["objects"] == ["dog", "cat", "car", "horse"] and lines[2]["task"] == "hard"


def test_prompt_sets_read_tables_lists_and_text(tmp_path):
    parti = suites.get("partiprompts").read_lines(write(tmp_path, "PartiPrompts.tsv", PARTI), Judges())
    assert [(line["prompt"], line["task"]) for line in parti] == [("a robot", "Artifacts"), ("bond", "Abstract")]
    draw = write(tmp_path, "draw.csv", "Prompts,Category\nA red car.,Colors\n")
    assert suites.get("drawbench").read_lines(draw, Judges())[0]["task"] == "Colors"
    for name, text in (("p.txt", "\ufeffa dog\n\na cat\n"), ("p.json", '["a dog", "a cat"]')):
        lines = suites.get("prompts").read_lines(write(tmp_path, name, text), Judges())
        assert [(line["prompt"], line["task"]) for line in lines] == [("a dog", "all"), ("a cat", "all")]


def test_hpdv2_takes_the_style_from_the_file_and_all_from_a_folder(tmp_path):
    suite = suites.get("hpdv2")
    for style in ("anime", "concept-art", "paintings", "photo"):
        write(tmp_path, f"{style}.json", json.dumps([f"{style} 1", f"{style} 2"]))
    assert [line["task"] for line in suite.read_lines(tmp_path / "photo.json", Judges())] == ["photo"] * 2
    assert len(suite.read_lines(tmp_path, Judges())) == 8


def test_metadata_may_be_nested_and_replaces_the_parser(tmp_path):
    record = {"prompt": "anything", "metadata": {"first": "traffic light", "second": "dog", "relation": "near"}}
    path = write(tmp_path, "p.jsonl", json.dumps({"prompt": "a dog near a cat"}) + "\n" + json.dumps(record))
    (tmp_path / "q.jsonl").write_text(json.dumps(record))
    suite = suites.get("compbench_spatial")
    judges = suite.prepare(Judges(detect=lambda images, labels: []))
    with pytest.raises(ValueError, match="does not look like"):  # only half has the category's form
        suite.read_lines(path, judges)
    assert suite.line("anything", record["metadata"], judges)["pair"] == (("traffic light",), ("dog",), "near")


@pytest.mark.parametrize(
    ("suite", "name", "text", "said"),
    [
        ("geneval", "p.jsonl", json.dumps({"prompt": "a dog"}), "line 1 is no GenEval line.*`include`"),
        ("geneval", "p.jsonl", json.dumps(GENEVAL2), "line 1 is no GenEval line"),
        ("geneval", "p.jsonl", "{", "line 1: not JSON"),
        ("geneval", "p.jsonl", "[1]", "line 1: must be an object"),
        (
            "geneval2",
            "p.jsonl",
            json.dumps({"prompt": "a", "tag": "colors", "include": []}),
            "line 1 is no GenEval 2 line",
        ),
        ("geneval2", "p.jsonl", json.dumps({**GENEVAL2, "prompt": " "}), "`prompt` must be a text"),
        ("compbench_color", "p.jsonl", json.dumps({"prompt": "a red cup", "include": []}), "have the field 'include'"),
        ("compbench_color", "p.csv", "a", "has no known form"),
        ("compbench_color", "p.txt", "\n\n", "holds no prompts"),
        ("compbench_numeracy", "p.txt", "a red dog\na blue cat", "use the suite compbench_color"),
        ("dpg", "p.csv", HRS_SPATIAL, "lacks the column 'item_id'"),
        ("dpg", "p.csv", DPG.splitlines()[0], "holds no rows"),
        ("hrs_spatial", "p.csv", HRS_COUNTING, "lacks the column 'obj3'"),
        ("hrs_size", "p.csv", HRS_SPATIAL, "'relations' has 'below'; valid: larger"),
        ("hpdv2", "style.json", '["a"]', "their names are anime"),
        ("partiprompts", "p.tsv", "Prompt\tNote\na\tb\n", "lacks the column 'Category'"),
        ("prompts", "p.json", '{"a": 1}', "must hold a list of prompts"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, suite, name, text, said):
    judges = Judges(parse=lambda prompt: None)
    with pytest.raises(ValueError, match=said):
        suites.get(suite).read_lines(write(tmp_path, name, text), judges)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no prompt file .*nothing\.txt"):
        suites.get("prompts").read(tmp_path / "nothing.txt")
