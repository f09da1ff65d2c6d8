"""What people type who come from other tools, and what it is called here."""

from collections.abc import Iterable

from bclightning.errors import nearest

NO_EPOCHS = (
    "the number of epochs is not given: add --trainer.max_epochs 20, or trainer: {max_epochs: 20} "
    "to the configuration"
)

# Options by the names of other tools, in lower case and without dashes.
_OPTIONS = {
    "model.learning_rate": "lr rate base_lr model.lr optimizer.lr",
    "model.final_learning_rate": "final_lr min_lr eta_min",
    "model.optimizer": "optim opt solver",
    "model.loss": "criterion loss_fn objective",
    "model.network.class_path": "net arch architecture backbone",
    "model.network.regularizer": "method reg regularization",
    "model.network.hidden": "hidden_size hidden_sizes layers",
    "trainer.max_epochs": "epochs epoch n_epochs num_epochs nb_epochs num_train_epochs iterations",
    "trainer.devices": "gpus gpu n_gpus num_gpus ngpus",
    "trainer.accelerator": "device cuda cpu",
    "trainer.precision": "amp fp16 bf16 half mixed_precision",
    "trainer.gradient_clip_val": "grad_clip clip_grad max_grad_norm",
    "trainer.fast_dev_run": "debug dry_run",
    "trainer.log_every_n_steps": "logging_steps log_interval",
    "data": "dataset data_set data_name",
    "data.batch_size": "batch bs train_batch_size per_device_train_batch_size mini_batch_size",
    "data.eval_batch_size": "val_batch_size test_batch_size per_device_eval_batch_size",
    "data.root": "data_dir data_root data_path dataset_dir root_dir data_folder",
    "seed_everything": "seed random_seed random_state manual_seed",
    "config": "cfg recipe conf config_file config_path",
    "resume": "resume_from resume_from_checkpoint continue",
    "run_id": "name run_name run exp_name",
    "experiment": "group project_name exp",
    "runs_dir": "output_dir out_dir log_dir logdir save_dir results_dir workdir",
    "ckpt_path": "weights checkpoint ckpt load",
    "warm_start": "pretrained init_from init_weights finetune weights checkpoint ckpt load",
    "wandb.mode": "wandb_mode offline online no_wandb use_wandb",
    "wandb.project": "wandb_project",
    "eval_weights": "evaluation_weights",
    "format": "onnx",
}

_COMMANDS = {
    "fit": "train learn run start training",
    "fit --resume": "resume continue",
    "test": "eval evaluate evaluation",
    "validate": "val valid validation",
    "predict": "inference infer classify prediction",
    "export": "convert pack quantize binarize save deploy",
    "export --format onnx": "onnx",
    "summary": "info costs profile describe model",
    "sweep": "tune search optimize hpo hyperopt",
    "compare": "report table plot results comparison",
    "reproduce": "replicate repeat rerun verify check",
    "list": "ls runs ps show history",
    "clean": "rm prune gc delete remove cleanup",
    "storage": "serve server db database",
    "completion": "complete autocomplete completions",
}


def suggest_option(typed: str, known: Iterable[str]) -> str:
    """A question that suggests an option; empty where none is near.

    Args:
        typed: The option as it was typed, with its dashes.
        known: All options, with their dashes.

    Example:
        >>> suggest_option("--lr", ["--model.learning_rate", "--run"])
        ' (did you mean --model.learning_rate?)'
        >>> suggest_option("--precision", ["--trainer.precision"])
        ' (did you mean --trainer.precision?)'
    """
    options = list(dict.fromkeys(known))
    word = typed.lstrip("-").replace("-", "_").lower()
    group, _, short = word.rpartition(".")
    meant = [f"--{name}" for name, others in _OPTIONS.items() if word in others.split()]
    meant += [f"--{name}" for name, others in _OPTIONS.items() if short in others.split()]
    last = [name for name in options if name.rpartition(".")[2].lstrip("-") == short]
    for name in [f"--{word}", *meant, *last]:
        if name in options:
            return f" (did you mean {name}?)"
    siblings = {name.rpartition(".")[2]: name for name in options if _group(name) == group}
    if not group or not siblings:
        return nearest(typed, options)
    # What they have in common would make any of them look near.
    found = nearest(short, siblings)
    return found.replace("mean ", f"mean --{group}.")


def unknown_option(typed: str, known: Iterable[str], owner: str = "") -> str:
    """Say that there is no such option, and which is meant.

    Args:
        typed: The option as it was typed, with its dashes.
        known: All options, with their dashes.
        owner: Name of the class that the option would belong to.

    Example:
        >>> unknown_option("--model.network.width", ["--model.network.hidden"], "MLP")
        'there is no option --model.network.width; MLP has hidden'
    """
    options = list(known)
    hint = suggest_option(typed, options)
    if not hint and owner:
        siblings = [name for name in options if _group(name) == _group(typed)]
        names = ", ".join(name.rpartition(".")[2] for name in siblings)
        hint = f"; {owner} has {names}" if names else ""
    return f"there is no option {typed}{hint}"


def not_a_data_set(name: str, known: Iterable[str]) -> str:
    """Say that there is no such data set, and which there are.

    Example:
        >>> not_a_data_set("FashionMNIST", ["MNIST", "Digits"])  # doctest: +ELLIPSIS
        "there is no data set 'FashionMNIST'; the data sets are Digits and MNIST, and one of ...
    """
    *first, last = sorted(known)
    names = f"{', '.join(first)} and {last}" if first else last
    return (
        f"there is no data set {name!r}; the data sets are {names}, and one of your own is named "
        "as package.Class"
    )


def not_a_precision(name: str, known: Iterable[object]) -> str:
    """Say that there is no such precision, and which there are.

    Example:
        >>> not_a_precision("fp16", [16, "16-mixed", "32-true"])
        "'fp16' is not a precision (did you mean 16-mixed?); they are 16-mixed and 32-true"
    """
    # Numbers and short forms stand for one of these.
    *first, last = [str(choice) for choice in known if str(choice).endswith(("-mixed", "-true"))]
    width = (
        "bf16" if "bf" in name.lower() else next((w for w in ("16", "32", "64") if w in name), "")
    )
    meant = [choice for choice in (f"{width}-mixed", f"{width}-true") if choice in (*first, last)]
    hint = f" (did you mean {meant[0]}?)" if meant else ""
    return f"{name!r} is not a precision{hint}; they are {', '.join(first)} and {last}"


def _group(option: str) -> str:
    return option.lstrip("-").rpartition(".")[0]


def suggest_command(typed: str, known: Iterable[str]) -> str:
    """A question that suggests a command; empty where none is near.

    Example:
        >>> suggest_command("train", ["fit", "test"])
        ' (did you mean fit?)'
    """
    commands = list(known)
    for name, others in _COMMANDS.items():
        if typed.lower() in others.split() and name.partition(" ")[0] in commands:
            return f" (did you mean {name}?)"
    return nearest(typed, commands)
