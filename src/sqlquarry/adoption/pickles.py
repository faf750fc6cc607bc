"""Find out what a pickled weights file would import, without executing it."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path

from sqlquarry.errors import AdoptionError
from sqlquarry.text import first_of

# Everything that torch.save writes for a dictionary of dense tensors and parameters (torch 1.6 to 2.13,
# torch/_utils.py and torch/storage.py).
_DTYPES = ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
_PLAIN = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_tensor_v2",
        "torch.storage UntypedStorage",
        *(f"torch {dtype}Storage" for dtype in _DTYPES),
    }
)
# Other ways to refer to a function or class. torch.save writes protocol 2, which has none of them.
_INDIRECT = frozenset({"STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"})
_LARGEST_PICKLE_BYTES = 64 * 2**20  # a pickle has about 150 bytes for each tensor
_AGAIN = "Save the adapter again with the current PEFT, which writes safetensors"


def refuse_code(path: Path) -> None:
    """Check that loading a file that torch.save wrote would build tensors and nothing else.

    Raises:
        AdoptionError: the pickle refers to any other function or class, which the message names, or the file has
            another format.
    """
    if not zipfile.is_zipfile(path):
        raise AdoptionError(f"{path} is not in the zip format that torch has written since 1.6. {_AGAIN}.")
    try:
        found = _globals(_pickle(path))
    except (ValueError, zipfile.BadZipFile, OSError, EOFError, RuntimeError) as error:  # RuntimeError: encrypted
        raise AdoptionError(f"{path} is not a weights file of torch ({error}). {_AGAIN}.") from error
    if others := sorted(found - _PLAIN):
        raise AdoptionError(
            f"{path} is a pickle that refers to {first_of(others)}, which tensors do not need. Such a file can run any "
            f"code, so it is not loaded. {_AGAIN}, or ask its author for safetensors."
        )


def _pickle(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
            raise ValueError("it is a TorchScript program")
        if len(set(names)) < len(names) or len({name.partition("/")[0] for name in names}) > 1:
            raise ValueError("its entries are not those of one archive")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed")
        pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
        if [entry.filename.partition("/")[2] for entry in pickles] != ["data.pkl"]:
            raise ValueError(f"it has the pickles {first_of([entry.filename for entry in pickles]) or 'none'}")
        if pickles[0].file_size > _LARGEST_PICKLE_BYTES:
            raise ValueError(f"its pickle has {pickles[0].file_size:,} bytes")
        return archive.read(pickles[0])


def _globals(content: bytes) -> set[str]:
    """Return "module name" of every function and class that a pickle refers to."""
    found: set[str] = set()
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "GLOBAL":
            found.add(str(argument))
        elif opcode.name in _INDIRECT:
            # What the arguments are is only known at run time, so the last two texts are no more than a hint.
            hint = argument if opcode.name == "INST" else " ".join(texts[-2:])
            found.add(f"{hint} ({opcode.name})")
        elif isinstance(argument, str):
            texts = [*texts[-1:], argument]
    return found
