"""Records: what is read of them can be trusted."""

import json
import shutil
from pathlib import Path

import pytest

from bclightning.errors import UserError
from bclightning.runs.record import RunRecord

DIGITS = Path(__file__).parents[2] / "results" / "digits" / "digits-none-s1"


@pytest.mark.parametrize("key", ["run_id", "experiment"])
@pytest.mark.parametrize("name", ["../up", "/absolute", "a/b", "..", "", "a\n", "[/x]", "a" * 65])
def test_a_record_that_names_a_run_as_none_can_be_named_is_refused(tmp_path, key, name):
    content = json.loads((DIGITS / "run.json").read_text())
    RunRecord.parse(content)
    with pytest.raises(UserError, match="must be 1 to 64 letters, digits, dots"):
        RunRecord.parse({**content, key: name})


@pytest.mark.parametrize("command", [("reproduce", "r"), ("compare", "r", "--write", "page")])
def test_no_command_leaves_its_folders_for_such_a_name(folder, refused, command):
    shutil.copytree(DIGITS, folder / "r")
    content = json.loads((folder / "r/run.json").read_text())
    content["run_id"] = "../../escaped"
    (folder / "r/run.json").write_text(json.dumps(content))
    before = sorted(folder.parent.rglob("*"))
    assert "run_id in r/run.json '../../escaped' must be" in refused(*command)
    assert sorted(folder.parent.rglob("*")) == before
