"""What the README says is run, so that it stays true."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import bclightning
from bclightning.cli.main import main
from bclightning.compare.comparison import compare
from bclightning.compare.loading import gather
from bclightning.inference import PackedModel
from bclightning.models import MLP
from bclightning.preprocessing import Preprocessing
from bclightning.runs.record import RunRecord

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [
    line.rpartition("&& ")[2] for block in blocks("bash") for line in block.splitlines() if line
]


def test_its_first_two_commands_are_the_promised_ones():
    assert blocks("bash")[0].strip() == "pip install -e . && bcl fit --config digits.yaml"
    assert blocks("bash")[1].strip() == "pip install -e '.[test]' && pytest"


def test_its_main_job_trains_to_the_promised_error_and_its_other_commands_follow(folder, capsys):
    main(shlex.split(COMMANDS[0])[1:])
    (record_path,) = folder.glob("results/runs/digits-fit/*/run.json")
    record = RunRecord.read(record_path)
    assert record.test_value <= 4
    assert record.evaluation == {"weights": "binary", "batch_norm": "as trained"}
    run = str(record_path.parent)
    Image.new("L", (8, 8)).save("digit.png")
    follow = [
        c
        for c in COMMANDS
        if re.match("bcl (test|validate|predict|export|summary|fit --resume|list|clean)", c)
        and "photo" not in c
    ]
    assert len(follow) == 11
    for command in follow:
        words = shlex.split(command)[1:]
        main([run if word == "RUN" or word.startswith("results/runs/") else word for word in words])
    (longer,) = (c for c in COMMANDS if c.startswith("bcl fit --warm_start RUN"))
    main([run if word == "RUN" else word for word in shlex.split(longer)[1:]])
    (new,) = (
        path for path in folder.glob("results/runs/digits-fit/*/run.json") if path != record_path
    )
    assert RunRecord.read(new).epochs == 200
    assert (folder / "classes.csv").exists()
    assert (folder / "model.onnx").stat().st_size < 40_000


def test_its_three_commands_lead_from_photos_to_a_model(folder, capsys):
    commands = [c for c in COMMANDS if "photo" in c]
    assert len(commands) == 3
    for number in range(200):
        path = folder / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40, 36), 10 + 90 * (number % 2)).save(path)
    Image.effect_noise((320, 200), 100).save("photo.jpg")
    for command in commands:
        main(["1" if word == "30" else word for word in shlex.split(command)[1:]])
    assert re.search(r"photo\.jpg │ (cat|dog)", capsys.readouterr().out)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("bcl fit --config")])
@pytest.mark.parametrize("method", ["none", "stochastic"])
def test_its_settings_are_accepted(folder, capsys, command, method):
    (folder / "mine.yaml").write_text("trainer: {max_epochs: 2}\n")
    words = [*shlex.split(command)[1:], f"--model.network.regularizer={method}"]
    with pytest.raises(SystemExit) as stopped:
        main([*words, *([] if "--print_config" in words else ["--print_config"])])
    assert stopped.value.code == 0


# Those that need a server or another package, which the tests of their own subjects provide.
ELSEWHERE = re.compile(
    r"--storage|--wandb |--workspace|^pip|^wandb|^pytest|^python benchmarks|mypackage"
)


@pytest.mark.slow
def test_its_sweep_runs_and_is_compared_and_kept(folder, capfd):
    shutil.copytree(ROOT / "sweeps", folder / "sweeps")
    commands = [c for c in COMMANDS if re.match("bcl (sweep|compare)", c)]
    # That of MNIST takes hours; its page says what came of it.
    commands = [c for c in commands if not ELSEWHERE.search(c) and "sweeps/mnist" not in c]
    assert len(commands) == 8
    for command in commands:
        main(shlex.split(command)[1:])
    said = capfd.readouterr().out
    assert said.count("│ stochastic    │  12/12 │") == 2
    assert "results/digits matches its records" in said


def test_its_record_is_reproduced(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (command,) = [c for c in COMMANDS if c.startswith("bcl reproduce")]
    main(shlex.split(command)[1:])
    assert re.search("bit for bit the same|within the band", capsys.readouterr().out)


@pytest.mark.parametrize("page", sorted((ROOT / "results").glob("*/README.md")), ids=str)
def test_promoted_pages_are_what_their_records_say(page):
    main(["compare", "--check", str(page.parent)])


@pytest.mark.slow
def test_its_benchmarks_run(folder):
    """What they measure is for people to judge; that they still run is for here."""
    command = next(c for c in COMMANDS if c.startswith("python benchmarks"))
    words = [sys.executable, str(ROOT / shlex.split(command)[1])]
    done = subprocess.run([*words, "memory"], capture_output=True, text=True, check=True)
    assert re.search(r"deterministic +1\.0\d ", done.stdout)
    assert subprocess.run([*words, "nothing"], capture_output=True, check=False).returncode == 1


def test_every_command_is_one_that_is_tested_here():
    known = (
        *("bcl fit --config", "bcl fit --resume", "bcl test", "bcl validate", "bcl predict"),
        *("bcl fit --model", "bcl fit --data", "bcl fit --warm_start", "bcl list", "bcl clean"),
        # Against a server, by the tests of the command.
        "bcl sync",
        *("bcl export", "bcl summary", "bcl reproduce"),
    )
    others = [c for c in COMMANDS if not c.startswith(known)]
    assert [c for c in others if not c.startswith(("bcl sweep", "bcl compare"))] == [
        c for c in others if ELSEWHERE.search(c) and not c.startswith("bcl")
    ]


def test_a_module_of_ones_own_trains_as_it_says(folder, capsys):
    (command,) = [c for c in COMMANDS if "mypackage.MyModule" in c]
    own = command.replace("mypackage.MyModule", "own_modules.Regression")
    main(shlex.split(own.replace("mypackage.MyData", "own_modules.Table"))[1:])
    assert "val_loss" in capsys.readouterr().out


@pytest.mark.parametrize("code", blocks("python"))
def test_its_python_runs(folder, code):
    model = PackedModel.of(
        MLP(64, [8]),
        (1, 8, 8),
        [str(digit) for digit in range(10)],
        Preprocessing("centred", 16.0, {"mean": torch.zeros(1, 8, 8)}),
    )
    model.write(folder / "model.safetensors")
    exec(compile(code, "README.md", "exec"), {})


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_every_public_name_is_there():
    assert all(hasattr(bclightning, name) for name in bclightning.__all__)
    with pytest.raises(AttributeError, match="No bclightning attribute nothing"):
        _ = bclightning.nothing


def tables() -> list[tuple[str, list[str]]]:
    """Folders of results, each with the lines of the table that README has of it."""
    found = re.findall(r"<!-- from (results/\w+) -->\n\n((?:\|.*\n)+)", README)
    return [(folder, lines.splitlines()) for folder, lines in found]


def test_each_table_of_results_says_where_it_is_from():
    assert len(tables()) == len(re.findall(r"^\| arm \|.*\| paper", README, re.MULTILINE))


@pytest.mark.parametrize(("folder", "lines"), tables(), ids=[folder for folder, _ in tables()])
def test_its_figures_are_those_of_the_records(folder, lines):
    """Every figure of ours in a table is made again from committed records."""
    (comparison,) = compare([run.record for run in gather([str(ROOT / folder)])])
    headings, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [cells[0] for cells in rows] == [row.label for row in comparison.arms]
    n, epochs = map(int, re.findall(r"ours \(n = (\d+), (\d+) epochs\)", headings[1])[0])
    for row, cells in zip(comparison.arms, rows, strict=True):
        assert {run.epochs for run in row.runs} == {epochs}
        assert row.test.n == n
        made = {
            headings[0]: row.label,
            headings[1]: str(row.test),
            "evaluation weights": row.evaluation,
            "ours as a 1-bit model": "-" if row.one_bit is None else str(row.one_bit),
        }
        shown = dict(zip(headings, cells, strict=True))
        assert shown.popitem()[1] == ("-" if row.paper is None else str(row.paper))
        assert shown == {heading: made[heading] for heading in shown}
