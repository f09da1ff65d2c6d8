"""What people type who come from other tools, and the right word in the answer."""

import contextlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bclightning.cli.command_line import check_words, known_options, read_settings, take_apart
from bclightning.cli.main import COMMANDS, main, make_parser
from bclightning.errors import UserError
from bclightning.runs.config import option_names

EPOCHS = "--trainer.max_epochs"
DATA_SETS = "the data sets are Arrays, CIFAR10, Digits, ImageFolder, MNIST and SVHN"
DIGITS = ["--config", "digits.yaml"]

MISTAKES = [
    (["train"], "there is no command 'train' (did you mean fit?)"),
    (["eval", "RUN"], "did you mean test?"),
    (["evaluate", "RUN"], "did you mean test?"),
    (["val", "RUN"], "did you mean validate?"),
    (["inference"], "did you mean predict?"),
    (["infer"], "did you mean predict?"),
    (["convert", "RUN"], "did you mean export?"),
    (["tune"], "did you mean sweep?"),
    (["resume", "RUN"], "did you mean fit --resume?"),
    (["ls"], "did you mean list?"),
    (["rm"], "did you mean clean?"),
    (["list", "nothere"], "there is no folder nothere"),
    (["clean", "nothere"], "there is no folder nothere"),
    (["clean", "--dele"], "there is no option --dele (did you mean --delete?)"),
    (["fit"], "name a recipe or a file with --config, as bcl fit --config digits.yaml"),
    (["fit", "digits.yaml"], "there is no argument 'digits.yaml' (did you mean --config digits"),
    (["fit", "digits"], "(did you mean --config digits?)"),
    (["fit", *DIGITS, "epochs=3"], "options begin with --, as --epochs=3"),
    (["fit", *DIGITS, "stray"], "there is no argument 'stray'; options begin with --"),
    (["fit", *DIGITS, "--lr", "0.1"], "no option --lr (did you mean --model.learning_rate?)"),
    (["fit", *DIGITS, "--learning-rate", "0.1"], "(did you mean --model.learning_rate?)"),
    (["fit", *DIGITS, "--epochs", "3"], f"no option --epochs (did you mean {EPOCHS}?)"),
    (["fit", *DIGITS, "--max-epochs=3"], f"(did you mean {EPOCHS}?)"),
    (["fit", *DIGITS, "--trainer.epochs", "3"], f"(did you mean {EPOCHS}?)"),
    (["fit", *DIGITS, "--trainr.max_epochs", "3"], f"(did you mean {EPOCHS}?)"),
    (["fit", *DIGITS, "--batch-size", "3"], "(did you mean --data.batch_size?)"),
    (["fit", *DIGITS, "--batch_size", "3"], "(did you mean --data.batch_size?)"),
    (["fit", *DIGITS, "--seed", "3"], "(did you mean --seed_everything?)"),
    (["fit", *DIGITS, "--accelerator", "gpu"], "(did you mean --trainer.accelerator?)"),
    (["fit", *DIGITS, "--precision", "fp16"], "(did you mean --trainer.precision?)"),
    (["fit", *DIGITS, "--data_dir", "x"], "(did you mean --data.root?)"),
    (["fit", *DIGITS, "--regularizer", "none"], "(did you mean --model.network.regularizer?)"),
    (["fit", *DIGITS, "--resume_from_checkpoint", "x"], "(did you mean --resume?)"),
    (["fit", *DIGITS, "--output_dir", "x"], "(did you mean --runs_dir?)"),
    (["fit", *DIGITS, "--name", "x"], "(did you mean --run_id?)"),
    (["fit", *DIGITS, "--zebra", "x"], "there is no option --zebra"),
    (["fit", *DIGITS, "--data", "FashionMNIST"], f"no data set 'FashionMNIST'; {DATA_SETS}"),
    (["fit", *DIGITS, "--data.class_path=Mnist"], DATA_SETS),
    (["fit", *DIGITS, "--model.network", "ResNet50"], "'ResNet50' is not a class; write it as"),
    (
        ["fit", *DIGITS, "--trainer.precision", "fp16"],
        "'fp16' is not a precision (did you mean 16-",
    ),
    (
        ["fit", *DIGITS, "--trainer.precision", "half"],
        "16-mixed, bf16-true, bf16-mixed, 32-true and",
    ),
    (
        ["fit", *DIGITS, "--model.network.width", "0.5"],
        "MLP has in_features, hidden, classes, regul",
    ),
    (["fit", *DIGITS, f"{EPOCHS}=ten"], f"{EPOCHS}: 'ten' is not of type int"),
    (["fit", *DIGITS, EPOCHS, "1.5"], f"{EPOCHS}: '1.5' is not of type int"),
    (["fit", *DIGITS, EPOCHS], f"{EPOCHS} needs a value"),
    (["fit", *DIGITS, "--trainer.fast_dev_run"], "--trainer.fast_dev_run needs a value"),
    (["fit", *DIGITS, "--model.optimizer", "adamw"], "'adamw' is not one of 'adam', 'sgd', 'nest"),
    (
        ["fit", *DIGITS, "--wandb.mode", "off"],
        "'off' is not one of 'online', 'offline', 'disabled'",
    ),
    (["fit", "--config", "README.md"], "README.md is not a YAML configuration; give a file of opt"),
    (["fit", "--config", "notes.txt"], "notes.txt is not a YAML configuration"),
    (["fit", "--config", "endless.yaml"], f"the number of epochs is not given: add {EPOCHS} 20"),
    (["fit", "--config", "typo.yaml"], f"(did you mean {EPOCHS}?)"),
    (["fit", "--resume", "nothere"], "there is no run 'nothere'"),
    (["test", "nothere"], "there is no run 'nothere'"),
    (["test"], "bcl test RUN"),
    (["validate"], "bcl validate RUN"),
    (["export"], "bcl export RUN"),
    (["summary"], "bcl summary RUN"),
    (["reproduce"], "bcl reproduce RUN"),
    (["predict"], "bcl predict MODEL|RUN"),
    (["summary", "nothere"], "there is no run 'nothere'"),
    (["test", "--weights", "x"], "(did you mean --ckpt_path?)"),
    (["export", "--onnx", "x"], "(did you mean --format?)"),
    (["predict", "nothere"], "there is no run 'nothere'"),
    (["predict", "x", "--outptu", "y"], "no option --outptu (did you mean --output?)"),
    (["predict", "x", "--weights", "y"], "no option --weights (did you mean --ckpt_path?)"),
    (["sweep", "digits", "--workers", "2"], "there is no option --workers"),
    (["sweep", "nothere"], "the shipped ones are cifar10, digits"),
]


@pytest.fixture
def typed(folder):
    """A folder with files that are no configurations, or not whole ones."""
    (folder / "README.md").write_text("# Title\n\nWords: and: colons\n")
    (folder / "notes.txt").write_text("only words")
    (folder / "endless.yaml").write_text("data: bclightning.data.Digits\n")
    (folder / "typo.yaml").write_text("data: bclightning.data.Digits\ntrainer: {max_epocs: 1}\n")


@pytest.mark.parametrize(("words", "answer"), MISTAKES, ids=lambda value: "")
def test_a_mistake_is_answered_with_the_right_word(typed, refused, words, answer):
    assert answer in refused(*words)


def test_a_run_where_a_recipe_belongs(folder, refused):
    (folder / "results/runs/digits/mine").mkdir(parents=True)
    (folder / "results/runs/digits/mine/config.yaml").write_text("seed_everything: 0\n")
    assert refused("fit", "mine").endswith("(did you mean --resume mine?)")


def test_a_gpu_that_is_not_there(folder, refused, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name in ("gpu", "cuda"):
        said = refused("fit", *DIGITS, "--trainer.accelerator", name)
        assert said == "torch finds no GPU here; leave out --trainer.accelerator, or give cpu"


def test_a_logger_that_wandb_refuses_is_one_sentence(folder, tiny, refused, monkeypatch):
    """Without a key; W&B raises errors of its own, which are no ValueError."""
    import wandb

    def no_key(**_):
        raise wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", no_key)
    words = ["--wandb.mode", "disabled", "--trainer.logger", "WandbLogger"]
    said = refused("fit", "--config", tiny, *words)
    assert "the logger that --trainer.logger names is refused by W&B (No API key" in said


def test_a_name_where_a_list_belongs(folder, refused):
    binary = "{class_path: bclightning.BinaryConnect, init_args: {skip: network.fc}}"
    (folder / "own.yaml").write_text(f"trainer: {{callbacks: [{binary}]}}\n")
    said = refused("fit", *DIGITS, "--config", "own.yaml")
    assert said == "--trainer.callbacks.skip: 'network.fc' is not a list; write [network.fc]"


def test_mistakes_do_not_wait_for_torch(typed):
    """All of them, but for what torch alone can tell."""
    slow = ("--model.network", "ResNet50")
    lines = [words for words, _ in MISTAKES if not set(slow) & set(words)]
    code = (
        "import sys\nfrom bclightning.cli.main import main\n"
        f"for words in {lines!r}:\n"
        "    try:\n        main(words)\n    except SystemExit as stopped:\n"
        "        assert stopped.code == 2\n"
        "    assert not {'torch', 'lightning'} & set(sys.modules), words\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    assert done.stderr.count("bcl: ") >= len(lines)


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.configures])
def test_no_option_of_the_parser_is_refused(folder, name):
    """What the quick check knows is at least what the parser takes."""
    import importlib

    parser = make_parser(name, importlib.import_module(f"bclightning.cli.{name}"))
    run_option = COMMANDS[name].run_option or "--run"
    for option in option_names(parser):
        if option not in ("--run", "--config", run_option):
            # Values of other types are refused, and that they are is not the question.
            with contextlib.suppress(WrongValue):
                _check(option, name)


class WrongValue(Exception):
    pass


def _check(option, name):
    try:
        check_words([*DIGITS, option, "null"], *_of(name))
    except UserError as error:
        if "is not of type" in str(error) or "is not one of" in str(error):
            raise WrongValue from error
        raise


def _of(name):
    return name, COMMANDS[name].own, COMMANDS[name].run_option or "--run"


@pytest.mark.parametrize(
    "words",
    [
        ["--model.network.init_args.hidden=[32]", "--data.batch_size", "10"],
        ["--model.network", "bclightning.models.ConvNet", "--model.network.width", "0.5"],
        ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.patience=3"],
        ["--trainer.precision", "bf16"],
        ["--trainer.precision=16-mixed", "--trainer.devices", "auto"],
        ["--trainer.fast_dev_run=true", "--trainer.overfit_batches", "1e-1"],
        ["--model.end_factor", "null", "--data.root=here"],
        ["--data", "mypackage.Data", "--data.whatever", "1"],
        ["--model", "mypackage.Module", "--model.whatever", "1"],
        ["--model.network.class_path=mypackage.Net", "--model.network.whatever", "1"],
        ["--trainer", "{max_epochs: 3}", "--print_config"],
        ["--trainer.max_epochs=-1", "-c", "mnist.yaml"],
        ["--trainer.logger.help", "CSVLogger"],
    ],
)
def test_what_may_be_right_is_left_to_the_parser(folder, words):
    check_words([*DIGITS, *words], *_of("fit"))


def test_arguments_of_a_class_that_was_replaced_are_not_looked_at(folder):
    (folder / "convnet.yaml").write_text("model: {network: bclightning.models.ConvNet}\n")
    check_words([*DIGITS, "-c", "convnet.yaml", "--model.network.width=1"], *_of("fit"))
    with pytest.raises(UserError, match="MLP has in_features"):
        check_words(["-c", "convnet.yaml", *DIGITS, "--model.network.width=1"], *_of("fit"))


words = st.lists(st.text(st.sampled_from("-=.a1cfignodtlmxyr+ "), max_size=12), max_size=5)


@given(words)
def test_any_words_are_taken_apart_or_refused_in_one_sentence(words):
    said = ""
    try:
        check_words(words, *_of("fit"))
    except UserError as error:
        said = str(error)
    assert "\n" not in said


@given(words)
def test_no_word_is_lost(words):
    line = take_apart(words)
    kept = [*line.positionals, *(value for _, value in line.options if value is not None)]
    assert len(kept) + len(line.options) >= len(words)


def test_positional_runs_work_wherever_a_run_is_asked_for(folder, trained, capsys):
    run = str(trained / "results/runs/digits/deterministic")
    line = take_apart([run])
    read_settings(line, run)
    assert "model.network.regularizer" in line.settings
    known = known_options(None, line)
    assert known.owners["model.network"] == "MLP"
    main(["summary", run])
    assert "MLP on digits" in capsys.readouterr().out
