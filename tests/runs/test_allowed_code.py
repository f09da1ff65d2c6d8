"""A run folder that was sent is data: it calls allowed classes, and nothing else of this machine.

Each attack is tried twice: in a folder that was sent, where nothing may happen, and as a
configuration that its user names, where it does what it says, so that the attack is a real one.
"""

import contextlib
import gc
import os
import re
import shutil
import sqlite3
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from bclightning.cli.main import main
from bclightning.errors import UserError
from bclightning.runs import RunConfig, fit
from bclightning.runs.allowed_code import AllowedCode, allowed_in_definition
from bclightning.runs.origin import key_file, made_here, signed
from bclightning.sweep.definition import Definition
from bclightning.sweep.studies import Studies

# The parser only warns of some of what is tried here, which must not be what refuses it.
pytestmark = pytest.mark.filterwarnings("ignore")

RESULTS = Path(__file__).parents[2] / "results"

# A stranger's module, which somehow is on this machine: to import it is bad enough.
PLANTED = """
import pathlib
HERE = pathlib.Path(__file__).parent
def note(*_, **__):
    (HERE / "executed").touch()
note()
import lightning.pytorch as pl
from torch import nn
class Net(nn.Linear):
    def __init__(self, in_features: int = 64, out_features: int = 10):
        super().__init__(in_features, out_features)
        note()
    def forward(self, images):
        return super().forward(images.flatten(1))
    @classmethod
    def make(cls) -> nn.Module:
        return cls()
    @staticmethod
    def build() -> nn.Module:
        return Net()
def make_net() -> nn.Module:
    return Net()
net = Net()
class Data(pl.LightningDataModule): pass
class Model(pl.LightningModule): pass
class Call(pl.Callback): pass
"""

# A module that its user allows, whose arguments are of every type that names something.
FRIENDLY = """
from types import GenericAlias, ModuleType
from typing import Any, Callable, Protocol
import lightning.pytorch as pl
import os
from subprocess import Popen
from torch import nn
class Calls(Protocol):
    def __call__(self, x: int) -> int: ...
class Call(pl.Callback):
    def __init__(self, kind: type = int, sub: type[nn.Module] = nn.Linear,
                 module: ModuleType | None = None, expression: GenericAlias | None = None,
                 function: Callable | None = None, factory: Callable[[], nn.Module] | None = None,
                 text: str | Callable = "", many: list[Callable] | None = None,
                 named: dict[str, Callable] | None = None, anything: Any = None,
                 protocol: Calls | None = None, default: Callable = len, layer: nn.Module = None):
        if callable(function):
            function("touch executed")
        if callable(factory):
            factory()
class Open(pl.Callback):
    def __init__(self, **kwargs: Any): pass
def make_net() -> nn.Module:
    return nn.Linear(64, 10)
"""


@pytest.fixture
def planted(folder, monkeypatch):
    """The stranger's module and the friendly one, where Python finds them."""
    place = folder / "site"
    place.mkdir()
    (place / "planted.py").write_text(PLANTED)
    (place / "friendly.py").write_text(FRIENDLY)
    monkeypatch.setattr(sys, "path", [str(place), *sys.path])
    for name in ("planted", "friendly", "this"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys.stdout, "write", lambda text: len(text))
    return place


def executed(place: Path) -> bool:
    return (place / "executed").exists() or Path("executed").exists()


@pytest.fixture
def sent(folder):
    """The folder of a recorded run, as it is sent."""
    path = folder / "sent"
    shutil.copytree(RESULTS / "digits" / "digits-none-s1", path)
    return path


def change(run: Path, attack) -> None:
    content = yaml.safe_load((run / "config.yaml").read_text())
    for key, value in attack.items():
        *groups, name = key.split("/")
        inner = content
        for group in groups:
            inner = inner[group]
        inner[name] = value
    (run / "config.yaml").write_text(yaml.safe_dump(content))


def callback(**arguments):
    return {"trainer/callbacks": [{"class_path": "friendly.Call", "init_args": arguments}]}


SHELL = {
    "class_path": "torch.fx.symbolic_trace",
    "init_args": {
        "root": "os.popen",
        "concrete_args": {"cmd": "touch executed", "mode": "r", "buffering": -1},
    },
}
LAYER = {"d_model": 64, "nhead": 1}

ATTACKS = {
    "shell": {"model/network": SHELL},
    "network": {"model/network": {"class_path": "planted.Net"}},
    "network as text": {"model/network": "planted.Net"},
    "network as YAML in text": {"model/network": "{class_path: planted.Net}"},
    "network by a function": {"model/network": {"class_path": "planted.make_net"}},
    "network by a class method": {"model/network": {"class_path": "planted.Net.make"}},
    "network by a static method": {"model/network": "planted.Net.build"},
    "network is an instance": {"model/network": "planted.net"},
    "network in a file": {"model/network": "network.yaml"},
    "data": {"data": {"class_path": "planted.Data"}},
    "data as text": {"data": "planted.Data"},
    "data in a file": {"data": "data.yaml"},
    "model": {"model": {"class_path": "planted.Model"}},
    "model in a file": {"model": "model.yaml"},
    "callback": {"trainer/callbacks": [{"class_path": "planted.Call"}]},
    "callback as text": {"trainer/callbacks": "planted.Call"},
    "callbacks as text": {"trainer/callbacks": ["planted.Call"]},
    "callback with further arguments": {
        "trainer/callbacks": [{"class_path": "planted.Call", "dict_kwargs": {"x": 1}}]
    },
    "logger": {"trainer/logger": {"class_path": "planted.Call"}},
    "plugins": {"trainer/plugins": [{"class_path": "planted.Call"}]},
    "plugin as text": {"trainer/plugins": "planted.Call"},
    "strategy": {"trainer/strategy": {"class_path": "planted.Call"}},
    "accelerator": {"trainer/accelerator": {"class_path": "planted.Call"}},
    "profiler": {"trainer/profiler": {"class_path": "planted.Call"}},
    "argument of any type": {
        "model/network": {
            "class_path": "torch.nn.Transformer",
            "init_args": {**LAYER, "custom_encoder": {"class_path": "planted.Net"}},
        }
    },
    "layer in a layer": {
        "model/network": {
            "class_path": "torch.nn.TransformerEncoder",
            "init_args": {
                "num_layers": 1,
                "encoder_layer": {
                    "class_path": "torch.nn.TransformerEncoderLayer",
                    "init_args": {**LAYER, "activation": {"class_path": "planted.Net"}},
                },
            },
        }
    },
    "name with dots": {"model.network": {"class_path": "planted.Net"}},
    "class path in the name": {"model.network.class_path": "planted.Net"},
    "another configuration": {"config": "evil.yaml"},
}

# With `friendly` allowed: what its arguments name is not.
ARGUMENT_ATTACKS = {
    "type": callback(kind="planted.Net"),
    "type of a base": callback(sub="planted.Net"),
    "module": callback(module="planted"),
    "module in a package": callback(module="xml.sax.saxutils"),
    "type expression": callback(expression="list[planted.Net]"),
    "callable": callback(function="planted.note"),
    "callable of the system": callback(function="os.system"),
    "callable by an alias": callback(function="friendly.os.system"),
    "callable object": callback(function={"class_path": "planted.Net"}),
    "class by an alias": callback(function="friendly.Popen"),
    "factory": callback(factory="planted.make_net"),
    "factory of a class": callback(factory={"class_path": "planted.Net", "init_args": {}}),
    "callables": callback(many=["planted.note"]),
    "callables by name": callback(named={"a": "planted.note"}),
    "anything": callback(anything={"class_path": "planted.Net"}),
    "anything in a list": callback(anything=[{"class_path": "planted.Net"}]),
    "protocol": callback(protocol={"class_path": "planted.Net"}),
    "layer": callback(layer={"class_path": "planted.Net"}),
    "function of an allowed package": {"model/network": {"class_path": "friendly.make_net"}},
    "its callable": callback(function="friendly.make_net"),
    "class method of a known class": callback(
        function="bclightning.training.Classifier.load_from_checkpoint"
    ),
    "method of a known class": callback(function="torch.nn.Linear.reset_parameters"),
    "open arguments": {
        "trainer/callbacks": [
            {
                "class_path": "friendly.Open",
                "dict_kwargs": {"net": {"class_path": "planted.Net"}},
            }
        ]
    },
}

# Nothing of these is executed before its own class is made; to name them is refused all the same.
OTHERS = {
    "module that is not imported": {"model/network": {"class_path": "this.Foo"}},
    "function of this package": {"model/network": {"class_path": "bclightning.cli.main.main"}},
    "writer of this package": {"model/network": "bclightning.storage.write_text"},
    "function of torch.nn": {"model/network": "torch.nn.functional.relu"},
    "function by an alias of ours": {"model/network": "bclightning.runs.provenance.subprocess.run"},
    "function by an alias of Lightning's": {"data": "lightning.pytorch.callbacks.os.system"},
    "callable argument of ours": {
        "trainer/callbacks": [
            {"class_path": "bclightning.training.BinaryConnect", "init_args": {"skip": "os.system"}}
        ]
    },
    "writer of Lightning": {
        "trainer/callbacks": [
            {
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"dirpath": "elsewhere"},
            }
        ]
    },
    "writer of Lightning by its short name": {"trainer/callbacks": ["ModelCheckpoint"]},
    "class of the process by its short name": {"trainer/callbacks": ["Sneaky"]},
    "logger of Lightning": {
        "trainer/logger": {
            "class_path": "lightning.pytorch.loggers.CSVLogger",
            "init_args": {"save_dir": "elsewhere"},
        }
    },
    "profiler of Lightning": {
        "trainer/profiler": {
            "class_path": "lightning.pytorch.profilers.SimpleProfiler",
            "init_args": {"dirpath": "elsewhere", "filename": "x"},
        }
    },
    "another command line": {"model": {"class_path": "lightning.pytorch.cli.LightningCLI"}},
    "the parser": {"model/network": {"class_path": "jsonargparse.CLI"}},
    "class path in the name of an option": {
        "model/network/init_args/Problem with given class_path 'this.Foo'": 1
    },
}


def write_files():
    for name, kind in (("network", "Net"), ("data", "Data"), ("model", "Model")):
        Path(f"{name}.yaml").write_text(f"class_path: planted.{kind}\n")
    Path("evil.yaml").write_text("model: {network: {class_path: planted.Net}}\n")


def open_sent(sent: Path, *packages: str) -> None:
    """What each command does with a run: read it, and build it."""
    RunConfig.from_run(sent, allow_code=packages).build()


@pytest.mark.parametrize("name", ATTACKS)
def test_what_a_sent_run_names_is_neither_imported_nor_called(planted, sent, name):
    write_files()
    change(sent, ATTACKS[name])
    with pytest.raises(UserError):
        open_sent(sent)
    assert not executed(planted)
    assert "planted" not in sys.modules


@pytest.mark.parametrize("name", ARGUMENT_ATTACKS)
def test_an_allowed_package_opens_no_other_one(planted, sent, name):
    change(sent, ARGUMENT_ATTACKS[name])
    before = set(sys.modules)
    with pytest.raises(UserError) as refused:
        open_sent(sent, "friendly")
    assert "--allow_code" in str(refused.value)
    assert not executed(planted)
    assert not {"planted", "xml.sax.saxutils"} & (set(sys.modules) - before)


@pytest.mark.parametrize("name", OTHERS)
def test_no_function_and_no_writer_can_be_named(planted, sent, name):
    from lightning.pytorch import Callback

    class Sneaky(Callback):
        def __init__(self):
            (planted / "executed").touch()

    change(sent, OTHERS[name])
    with pytest.raises(UserError):
        open_sent(sent)
    assert not executed(planted)
    assert "this" not in sys.modules
    assert not Path("elsewhere").exists()
    del Sneaky


@pytest.mark.parametrize("name", [name for name in ATTACKS if "config" not in name])
def test_as_a_config_that_its_user_names_the_same_is_code(planted, sent, name):
    """The negative control: what is refused above is what would be executed."""
    write_files()
    change(sent, ATTACKS[name])
    try:
        RunConfig.load(sent / "config.yaml").build()
    except Exception:  # what is built is no network: it is enough that it was built
        pass
    finally:
        sys.modules.pop("planted", None)
    deadline = time.monotonic() + 5
    while not executed(planted) and time.monotonic() < deadline:
        # A shell is a process of its own.
        time.sleep(0.01)
    assert executed(planted)
    # The shell's process, before others look for what was left open.
    gc.collect()


@pytest.mark.parametrize(
    "command",
    [
        ["test"],
        ["validate", "--run"],
        ["summary"],
        ["export"],
        ["predict"],
        ["predict", "--run"],
        ["reproduce"],
        ["fit", "--resume"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("attack", ["shell", "network as text"])
def test_every_command_that_opens_a_run_refuses_in_one_sentence(
    planted, sent, refused, command, attack
):
    change(sent, ATTACKS[attack])
    sentence = refused(*command, str(sent))
    path = "torch.fx.symbolic_trace" if attack == "shell" else "planted.Net"
    assert sentence.startswith(f"{path} is not called")
    assert "--allow_code" in sentence
    assert not executed(planted)
    assert os.getcwd() not in sys.path


def test_a_config_of_a_run_is_that_run_for_summary(planted, sent, refused):
    change(sent, ATTACKS["network"])
    assert "--allow_code planted" in refused("summary", str(sent / "config.yaml"))
    assert not executed(planted)


def test_yaml_tags_make_nothing(planted, sent):
    text = (sent / "config.yaml").read_text()
    for tag in ("object/apply:os.system", "object/new:planted.Net", "name:planted.Net"):
        (sent / "config.yaml").write_text(f"{text}x: !!python/{tag} ['touch executed']\n")
        with pytest.raises(UserError, match="not a readable YAML file"):
            open_sent(sent)
    assert not executed(planted)


def test_the_environment_is_not_read_into_a_config(sent, monkeypatch):
    monkeypatch.setenv("SECRET", "4711")
    change(sent, {"data/init_args/root": "${oc.env:SECRET}/$SECRET/${SECRET}"})
    assert "4711" not in str(RunConfig.from_run(sent).plain())


@pytest.mark.parametrize("page", sorted(path.name for path in RESULTS.iterdir() if path.is_dir()))
def test_recorded_runs_need_no_option(page):
    run = next(RESULTS.glob(f"{page}/*/config.yaml")).parent
    config = RunConfig.from_run(run)
    assert config.build().model is not None
    assert config.changed == []


def test_classes_of_torch_and_lightning_may_be_used_by_any_run(sent):
    change(
        sent,
        {
            "model/network": {
                "class_path": "torch.nn.Linear",
                "init_args": {"in_features": 64, "out_features": 10},
            },
            "trainer/callbacks": [
                {"class_path": "lightning.pytorch.callbacks.EarlyStopping"}
                | {"init_args": {"monitor": "val/error", "patience": 3}},
                {"class_path": "bclightning.training.BinaryConnect"},
            ],
        },
    )
    config = RunConfig.from_run(sent)
    assert type(config.build().model.network).__name__ == "BinaryLinear"
    config.build_trainer()


@pytest.mark.parametrize("how", ["argument", "option", "environment"])
def test_what_its_user_allows_is_called(planted, sent, how, monkeypatch, capsys):
    change(sent, callback() | {"model/network": {"class_path": "planted.Net"}})
    if how == "argument":
        open_sent(sent, "friendly", "planted.Net")
    elif how == "option":
        # Wherever it stands on the line.
        main(["summary", str(sent), "--allow_code", "friendly", "--allow_code=planted"])
    else:
        monkeypatch.setenv("BCL_ALLOW_CODE", "friendly,planted")
        open_sent(sent)
    assert executed(planted)


def test_a_function_is_only_allowed_by_its_whole_path(planted, sent):
    change(sent, ARGUMENT_ATTACKS["function of an allowed package"])
    with pytest.raises(UserError, match=r"friendly.make_net is not called.*not a class"):
        open_sent(sent, "friendly")
    open_sent(sent, "friendly.make_net")


def test_a_default_that_is_a_function_is_its_class_s_own(planted, sent):
    change(sent, callback())
    open_sent(sent, "friendly")


@pytest.mark.parametrize("entry", ["", "*", "a b", "os.system;x", "jsonargparse", "a..b"])
def test_what_cannot_be_allowed_is_refused(entry):
    with pytest.raises(UserError, match="--allow_code"):
        AllowedCode((entry,))


OWN = {
    "model": {"class_path": "own_modules.Regression"},
    "data": {"class_path": "own_modules.Table"},
    "monitor": "val_loss",
    "trainer.max_epochs": 1,
    "wandb.mode": "disabled",
    "run_id": "r",
}
OWN_RUN = "results/runs/table-fit/r"


def test_a_run_made_here_stays_code_wherever_it_is_moved(folder, capsys):
    fit(OWN)
    open_sent(OWN_RUN)
    shutil.move(OWN_RUN, folder / "moved")
    open_sent("moved")
    main(["validate", "moved"])
    assert "val_loss" in capsys.readouterr().out


def test_a_run_made_elsewhere_needs_the_option(folder, capsys, refused, monkeypatch):
    fit(OWN)
    monkeypatch.setenv("HOME", str(folder / "another"))
    assert "--allow_code own_modules" in refused("validate", OWN_RUN)
    main(["validate", OWN_RUN, "--allow_code", "own_modules"])
    assert "val_loss" in capsys.readouterr().out
    # Whoever only opened it has not made it.
    assert "--allow_code own_modules" in refused("validate", OWN_RUN)


@pytest.mark.parametrize("change_of", ["content", "checksum", "place", "name"])
def test_a_changed_config_is_a_stranger_s(folder, change_of):
    fit(OWN)
    config = Path(OWN_RUN) / "config.yaml"
    text = config.read_text()
    body, tag, checksum = text.rpartition("# made here: ")
    assert tag
    config.write_text(
        {
            "content": text.replace("batch_size: 32", "batch_size: 33"),
            "checksum": body + tag + checksum.translate(str.maketrans("0123456789", "1234567890")),
            "place": f"{tag}{checksum}{body}",
            "name": f"{text}seed_everything: 5\n",
        }[change_of]
    )
    assert config.read_text() != text
    with pytest.raises(UserError, match="--allow_code own_modules"):
        open_sent(OWN_RUN)


@pytest.mark.parametrize("home", ["a file", "an empty key", "none"])
def test_without_a_home_runs_are_made_and_the_option_is_asked_for(folder, monkeypatch, home):
    (folder / "file").touch()
    monkeypatch.setenv("HOME", str(folder / "file"))
    if home == "an empty key":
        (folder / ".config" / "bclightning").mkdir(parents=True)
        (folder / ".config" / "bclightning" / "key").touch()
        monkeypatch.setenv("HOME", str(folder))
    if home == "none":
        monkeypatch.setattr("bclightning.runs.origin.key_file", lambda: None)
    fit(OWN)
    assert "made here" not in (Path(OWN_RUN) / "config.yaml").read_text()
    with pytest.raises(UserError, match="--allow_code own_modules"):
        open_sent(OWN_RUN)
    open_sent(OWN_RUN, "own_modules")


def test_the_key_is_made_once_and_only_its_user_reads_it(folder, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "settings"))
    texts = []
    threads = [threading.Thread(target=lambda: texts.append(signed("a: 1\n"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(texts)) == 1
    assert made_here(texts[0])
    assert key_file() == folder / "settings" / "bclightning" / "key"
    assert key_file().stat().st_mode & 0o777 == 0o600
    assert [path.name for path in key_file().parent.iterdir()] == ["key"]


def test_a_key_is_never_a_part_of_a_run(folder):
    fit(OWN)
    key = key_file().read_text()
    assert len(key) == 64
    assert not any(key.encode() in p.read_bytes() for p in folder.rglob("*") if p.is_file())


def test_links_that_lead_out_of_a_sent_run_are_refused(sent, folder):
    (folder / "secret").write_text("x")
    (sent / "checkpoints").mkdir()
    for link in (sent / "metrics.link", sent / "checkpoints" / "best.ckpt"):
        link.symlink_to(folder / "secret")
        with pytest.raises(UserError, match="leads out of the run's folder"):
            open_sent(sent)
        link.unlink()
        link.symlink_to(sent / "run.json")
        open_sent(sent)


def test_folders_that_a_sent_run_would_write_to_are_not_its_choice(sent, folder):
    cifar = folder / "cifar"
    shutil.copytree(next(RESULTS.glob("cifar10/*/config.yaml")).parent, cifar)
    change(cifar, {"trainer/default_root_dir": "/nowhere", "data/init_args/cache_dir": "/nowhere"})
    config = RunConfig.from_run(cifar)
    assert "/nowhere" not in str(config.plain())
    assert config.changed == []
    mine = RunConfig.from_run(cifar, {"data.cache_dir": "/mine"})
    assert mine["data.cache_dir"] == "/mine"


def test_modules_in_the_current_folder_are_not_found_where_a_run_was_sent(
    planted, sent, monkeypatch, capsys
):
    here = os.getcwd()
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", here)])
    main(["summary", str(sent)])
    assert here not in sys.path
    main(["summary", str(sent), "--allow_code", "mine"])
    assert here in sys.path


def test_what_a_sent_run_names_brings_no_folder_before_the_libraries(
    planted, sent, folder, refused, monkeypatch
):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(folder))])
    Path("numpy.py").touch()
    change(sent, {"model/network": "numpy.Net"})
    Path("mine.yaml").write_text("seed_everything: 0\n")
    refused("test", "--config", "mine.yaml", "--run", str(sent))
    assert str(folder) not in sys.path[:-1]


def make_page(folder, sent, network):
    page = folder / "page"
    page.mkdir()
    shutil.move(sent, page / "run")
    overrides = {"model.network": network, "trainer.max_epochs": 1}
    definition = {"recipe": "digits.yaml", "arms": {"a": {}}, "overrides": overrides}
    (page / "sweep.yaml").write_text(yaml.safe_dump({**definition, "final_seeds": 1}))
    return page / "sweep.yaml"


@pytest.mark.parametrize("network", [SHELL, {"class_path": "planted.Net"}, "planted.Net"])
def test_a_definition_in_a_page_is_data(planted, sent, folder, refused, network):
    definition = make_page(folder, sent, network)
    assert "--allow_code" in refused("sweep", str(definition))
    assert not executed(planted)
    assert os.getcwd() not in sys.path
    # The same, named by its user, is code.
    shutil.copy(definition, "mine.yaml")
    assert allowed_in_definition("mine.yaml") is None


def test_a_storage_gives_no_options_to_runs(folder):
    definition = Definition.load(
        {
            "name": "s",
            "recipe": "digits.yaml",
            "arms": ["none"],
            "space": {"model.loss": {"choices": ["squared_hinge", "cross_entropy"]}},
            "trials": 1,
        }
    )
    studies = Studies(definition, "sqlite:///storage.db")
    try:
        studies.prepare("recipe")
        with contextlib.closing(sqlite3.connect("storage.db")) as database, database:
            database.execute(
                "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)"
                """ VALUES (1, 'model.network', 0, '{"name": "CategoricalDistribution","""
                """ "attributes": {"choices": ["os.popen"]}}')"""
            )
        with pytest.raises(UserError, match=r"model.network = 'os.popen'"):
            studies.claim()
    finally:
        studies.close()


def test_nothing_else_reads_what_could_execute():
    """CIFAR-10's batches, after their checksum, and checkpoints, as tensors and plain data."""
    could = re.compile(
        r"pickle\.loads?\(|Unpickler\(|yaml\.(load|unsafe_load|full_load)\(|(?<!safetensors\.)torch\.load\(|\beval\(\w"
        r"|\bexec\(|allow_pickle=True|weights_only=False|read_pickle|joblib"
    )
    package = Path(allowed_in_definition.__code__.co_filename).parents[1]
    found = [
        (path.name, line.strip())
        for path in sorted(package.rglob("*.py"))
        for line in path.read_text().splitlines()
        if could.search(line) and "`" not in line
    ]
    assert found == [
        ("cifar10.py", 'entries = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()'),
        ("cifar10.py", "class _BatchUnpickler(pickle.Unpickler):"),
        (
            "checkpoint_io.py",
            'checkpoint = torch.load(path, map_location="cpu", weights_only=True)',
        ),
        ("loadable.py", "torch.load(file, weights_only=True)"),
        # With a loader that makes plain data alone.
        ("yaml_files.py", "content = yaml.load(text, Loader=_Loader)"),
    ]
