"""Tensors out of PyTorch's `.pt` files, without PyTorch, and without unpickling: nothing in a file is ever run.

A `.pt` file is a zip archive: a pickle program, `data.pkl`, and the bytes of each storage beside it, `data/0`, `data/1`, ... Here the
program is not given to `pickle`. A small machine of our own goes through it, which knows the few instructions that `torch.save` needs for
dictionaries of tensors and the few names in `_CALLS` and `_STORAGES`; the first instruction or name beyond them refuses the file.
"""

import io
import mmap
import os
import pathlib
import pickletools
import sys
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from flowjax.runtime.messages import first_line

Tensors = dict[Any, Any]
"""Nested dictionaries, and arrays as their leaves."""

_MAPPED_FROM = 2**20  # bytes; smaller storages are read, and their checksum seen to, larger ones stay on disk
_LONGEST_PROGRAM = 2**27  # bytes; a model of ten thousand tensors takes a hundredth of that
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # first bytes of files of before PyTorch 1.6
_DTYPES = {
    "float64": np.dtype("f8"),
    "float32": np.dtype("f4"),
    "float16": np.dtype("f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "complex64": np.dtype("c8"),
    "complex128": np.dtype("c16"),
    "int64": np.dtype("i8"),
    "int32": np.dtype("i4"),
    "int16": np.dtype("i2"),
    "int8": np.dtype("i1"),
    "uint64": np.dtype("u8"),
    "uint32": np.dtype("u4"),
    "uint16": np.dtype("u2"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class _Refused(Exception):
    """A file holds something that is not a tensor, or is not whole."""


class _Storage(NamedTuple):
    """The bytes of a storage, and the type of its elements, where the storage knows it."""

    data: np.ndarray  # of bytes
    dtype: np.dtype | None


def read_torch(path: str | os.PathLike, *, plain: bool = False, bare: bool = False) -> Any:
    """The tensors of a `.pt` file, as `torch.load` has them.

    Args:
      path: written by `torch.save` (PyTorch 1.6 or newer) from a dictionary of tensors, parameters or further dictionaries.
      plain: let numbers, strings, None, lists and tuples stand beside them, as in the state of an optimizer.
      bare: let the file hold a tensor, a list or a tuple in place of the dictionary.

    Returns:
      The dictionary, with a read-only NumPy array for each tensor, in its own dtype (bfloat16 and float8 are those of ml_dtypes).
      Storages of a megabyte or more are memory-mapped: they cost nothing until they are read.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file that is not such an archive, is cut short or damaged, or holds anything else than tensors.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a .pt file written by torch.save")
    try:
        with open(path, "rb") as file:
            head = file.read(len(_LEGACY))
            if head == _LEGACY:
                raise _Refused("it is in the format of before PyTorch 1.6; load it there and write it again with torch.save")
            if head[:1] == b"\x80":
                raise _Refused("it is a pickle of Python objects, and nothing is unpickled here; write its tensors with torch.save")
            with zipfile.ZipFile(file) as archive:
                return _checked(_Archive(archive, file).load(), plain, bare)
    except _Refused as error:
        raise ValueError(f"{path}: not read: {error}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, IndexError, NotImplementedError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path}: not read: it is no .pt file, cut short or damaged ({first_line(error)})") from error


def read_torch_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a `.pt` file by name, whatever holds them: a tensor is called "", the parts of a tuple or list `arr_0`, `arr_1`, ...
    as of numpy.savez, and what is nested `outer.inner`. More than two tensors of one shape in a list are samples: they are stacked.

    Raises:
      FileNotFoundError, ValueError: as `read_torch`; a file without tensors.
    """
    found: dict[str, np.ndarray] = {}

    def collect(value: Any, place: str) -> None:
        if isinstance(value, np.ndarray):
            found[place] = value
        elif isinstance(value, list | tuple) and len(value) > 2 and len({getattr(part, "shape", None) for part in value}) == 1:
            if isinstance(value[0], np.ndarray):
                found[place] = np.stack(value)
        elif isinstance(value, dict | list | tuple):
            parts = value.items() if isinstance(value, dict) else ((f"arr_{k}", part) for k, part in enumerate(value))
            for key, part in parts:
                collect(part, f"{place}.{key}" if place else str(key))

    collect(read_torch(path, plain=True, bare=True), "")
    if not found:
        raise ValueError(f"{path}: holds no tensors")
    return found


class _Archive:
    """The archive, and where its files begin."""

    def __init__(self, archive: zipfile.ZipFile, file: io.BufferedReader):
        self._archive, self._file = archive, file
        self._map: mmap.mmap | None = None
        programs = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(programs) != 1:
            raise _Refused(f"it is a zip archive with {len(programs)} files called data.pkl, expected one; torch.save writes such files")
        self._root = programs[0].removesuffix("data.pkl")
        if f"{self._root}constants.pkl" in archive.namelist():
            raise _Refused("it is a TorchScript program, not a dictionary of tensors; save model.state_dict() instead")
        order = f"{self._root}byteorder"
        if order in archive.namelist() and archive.read(order) != sys.byteorder.encode():
            raise _Refused(f"it was written on a machine of another byte order than this one, which is {sys.byteorder}-endian")
        self._storages: dict[str, np.ndarray] = {}

    def load(self) -> Any:
        info = self._archive.getinfo(f"{self._root}data.pkl")
        if info.file_size > _LONGEST_PROGRAM:
            raise _Refused(f"its data.pkl has {info.file_size} bytes, more than any dictionary of tensors needs")
        return _run(self._archive.read(info), self.storage)

    def storage(self, reference: Any) -> _Storage:
        """The storage of `("storage", type, key, location, elements)`."""
        match reference:
            case ("storage", _Name(module="torch", name=kind), str(key), _, int(count)) if kind in _STORAGES:
                dtype = _DTYPES[_STORAGES[kind]]
            case ("storage", _Name(module="torch.storage", name="UntypedStorage"), str(key), _, int(count)):
                dtype = None
            case _:
                raise _Refused(f"it refers to {_shown(reference)}, which is no storage of plain numbers")
        if key not in self._storages:
            self._storages[key] = self._bytes(f"{self._root}data/{key}")
        data = self._storages[key]
        if count < 0 or count * (dtype.itemsize if dtype else 1) > len(data):
            raise _Refused(f"storage {key} holds {len(data)} bytes, too few for {count} elements")
        return _Storage(data, dtype)

    def _bytes(self, name: str) -> np.ndarray:
        info = self._archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size < _MAPPED_FROM:
            return np.frombuffer(self._archive.read(info), np.uint8)
        if self._map is None:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        header = self._map[info.header_offset : info.header_offset + 30]
        if header[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"no header of {name}")
        start = info.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        if start + info.file_size > len(self._map):
            raise zipfile.BadZipFile(f"{name} is cut short")
        return np.frombuffer(self._map, np.uint8, info.file_size, start)


# Meanings of the names in a program. Nothing else can be named, let alone called.


class _Name(NamedTuple):
    """A name that the program gives to something of Python's."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """`torch._utils._rebuild_tensor_v2`."""
    if not isinstance(storage, _Storage) or storage.dtype is None:
        raise _Refused("a tensor has no storage of a known type")
    return _view(storage.data, storage.dtype, offset, size, stride)


def _typed_tensor(storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any) -> np.ndarray:
    """`torch._utils._rebuild_tensor_v3`, of the types that came after typed storages."""
    if not isinstance(storage, _Storage) or not isinstance(dtype, _Name) or dtype.name not in _DTYPES:
        raise _Refused(f"a tensor is of type {dtype}, which is not known here")
    return _view(storage.data, _DTYPES[dtype.name], offset, size, stride)


def _parameter(data: Any, *_: Any) -> np.ndarray:
    """`torch._utils._rebuild_parameter`."""
    if not isinstance(data, np.ndarray):
        raise _Refused(f"a parameter holds {_shown(data)}")
    return data


def _mapping(pairs: Any = ()) -> dict[Any, Any]:
    """`collections.OrderedDict`."""
    return {_key(key): value for key, value in pairs}


_CALLS: dict[_Name, Callable[..., Any]] = {
    _Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    _Name("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
    _Name("torch._utils", "_rebuild_parameter"): _parameter,
    _Name("collections", "OrderedDict"): _mapping,
}
_VALUES = {_Name("torch", name) for name in (*_DTYPES, *_STORAGES)} | {_Name("torch.storage", "UntypedStorage")}


def _view(data: np.ndarray, dtype: np.dtype, offset: Any, size: Any, stride: Any) -> np.ndarray:
    """The tensor of `size` that lies with `stride` in the bytes of a storage, both in elements."""
    whole = all(isinstance(numbers, tuple) and all(type(n) is int and n >= 0 for n in numbers) for numbers in (size, stride, (offset,)))
    if not whole or len(size) != len(stride):
        raise _Refused(f"a tensor of size {_shown(size)} with stride {_shown(stride)} cannot be")
    if 0 in size:
        return np.zeros(size, dtype)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if last >= len(data) // dtype.itemsize:
        raise _Refused(f"a tensor of size {size} reaches beyond its storage of {len(data)} bytes")
    return np.ndarray(size, dtype, data, offset * dtype.itemsize, [s * dtype.itemsize for s in stride])


# Long, so that all instructions that a file may use are in one place: a case for each.
def _run(program: bytes, storage: Callable[[Any], _Storage]) -> Any:
    """The result of a pickle program, on a machine that can build dictionaries of tensors and nothing else."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        found = stack[start:]
        del stack[start:]
        return found

    def named(name: _Name) -> _Name:
        if name not in _CALLS and name not in _VALUES:
            raise _Refused(f"it holds a {name}, and only tensors are read; nothing of it was run")
        return name

    try:
        argument: Any
        for opcode, argument, _ in pickletools.genops(program):
            match opcode.name:
                case "PROTO" | "FRAME":
                    pass
                case "STOP":
                    return stack.pop()
                case "NONE":
                    stack.append(None)
                case "NEWTRUE" | "NEWFALSE":
                    stack.append(opcode.name == "NEWTRUE")
                case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                    stack.append(argument)
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_LIST":
                    stack.append([])
                case "EMPTY_TUPLE":
                    stack.append(())
                case "MARK":
                    marks.append(len(stack))
                case "TUPLE":
                    stack.append(tuple(since_mark()))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    count = int(opcode.name[-1])
                    stack[-count:] = [tuple(stack[-count:])]
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "APPEND":
                    value = stack.pop()
                    _of(stack[-1], list).append(value)
                case "APPENDS":
                    values = since_mark()
                    _of(stack[-1], list).extend(values)
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    _of(stack[-1], dict)[_key(key)] = value
                case "SETITEMS":
                    items = since_mark()
                    _of(stack[-1], dict).update({_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)})
                case "GLOBAL":
                    stack.append(named(_Name(*argument.split(" ", 1))))
                case "STACK_GLOBAL":
                    name, module = stack.pop(), stack.pop()
                    stack.append(named(_Name(_of(module, str), _of(name, str))))
                case "BINPERSID":
                    stack.append(storage(stack.pop()))
                case "REDUCE":
                    arguments, function = stack.pop(), stack.pop()
                    if not isinstance(function, _Name) or function not in _CALLS:
                        raise _Refused(f"it calls {_shown(function)}, and nothing of it is run")
                    stack.append(_CALLS[function](*_of(arguments, tuple)))
                case "BUILD":  # attributes of an OrderedDict, like a state_dict's _metadata: nothing is made of them
                    stack.pop()
                    _of(stack[-1], dict)
                case name:
                    raise _Refused(f"its program uses {name}, which no dictionary of tensors needs; nothing of it was run")
    except (ValueError, TypeError) as error:  # of pickletools, and of arguments that do not fit
        raise _Refused(f"its program is damaged ({first_line(error)})") from error
    raise _Refused("its program has no end")


def _of(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise _Refused(f"its program has {_shown(value)} where a {kind.__name__} belongs")
    return value


def _key(key: Any) -> str | int:
    if type(key) not in (str, int):
        raise _Refused(f"a key is {_shown(key)}, expected a string or a whole number")
    return key


def _checked(found: Any, plain: bool, bare: bool) -> Any:
    """`found`, if it is a dictionary with nothing but tensors in it (and plain values, if they may be there)."""
    if not isinstance(found, dict) and not (bare and isinstance(found, np.ndarray | list | tuple)):
        raise _Refused(f"it holds {_shown(found)}, expected a dictionary of tensors")
    pending: list[tuple[str, Any]] = [("", found)]
    seen: set[int] = set()
    while pending:
        place, value = pending.pop()
        if isinstance(value, dict | list | tuple) and (isinstance(value, dict) or plain):
            if id(value) in seen:
                continue
            seen.add(id(value))
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            pending += [(f"{place}[{key!r}]", part) for key, part in parts]
        elif not isinstance(value, np.ndarray) and not (plain and isinstance(value, str | int | float | None)):
            raise _Refused(f"the entry {place} is {_shown(value)}, not a tensor")
    return found


def _shown(value: Any) -> str:
    if isinstance(value, _Name):
        return str(value)
    if not isinstance(value, str | int | float):  # what is inside may be nested without end
        return f"a {type(value).__name__}"
    text = f"the {type(value).__name__} {value!r}"
    return text if len(text) < 80 else f"{text[:77]}..."
