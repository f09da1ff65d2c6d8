"""Parameters of trials that come back from a storage, which others may write to."""

from collections.abc import Mapping
from typing import Any

from bclightning.errors import UserError
from bclightning.sweep.definition import Choices, Definition


def check_parameters(definition: Definition, parameters: Mapping[str, Any], seed: str) -> None:
    """Refuse parameters that the sweep's own definition cannot have given.

    Args:
        definition: The definition.
        parameters: Parameters of a trial, as the storage has them.
        seed: Name of the parameter that is the seed of a final run.

    Raises:
        UserError: There is another option, or a value that is neither a number nor a choice.

    Example:
        >>> definition = Definition.load({"name": "a", "recipe": "digits.yaml", "arms": ["none"]})
        >>> try:
        ...     check_parameters(definition, {"model.network": "os.popen"}, "seed_everything")
        ... except UserError as error:
        ...     print(error)
        the storage has model.network = 'os.popen' for a trial, which is not in the definition's \
space; use another storage, or another name for this sweep
    """
    for key, value in parameters.items():
        spec = definition.space.get(key)
        if isinstance(spec, Choices):
            known = any(type(value) is type(choice) and value == choice for choice in spec.choices)
        else:
            known = (spec is not None or key == seed) and type(value) in (int, float)
        if not known:
            raise UserError(
                f"the storage has {key} = {value!r} for a trial, which is not in the definition's "
                "space; use another storage, or another name for this sweep"
            )
