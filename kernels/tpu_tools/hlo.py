"""Collectives of a compiled program, read from its text: which it runs, how often, over which devices."""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np

_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_COMMENT = re.compile(r"/\*.*?\*/")
_LAYOUT = re.compile(r"\{[^{}]*\}")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a program."""

    opcode: str
    """all-reduce, all-gather, reduce-scatter, all-to-all or collective-permute, however the compiler wraps it."""
    count: int
    """How often it runs in one run of the program: more than once in a loop."""
    bytes: int
    """Bytes of its result on one device, each time."""
    arrays: tuple[tuple[str, tuple[int, ...]], ...]
    """Element type and shape of the arrays of the result."""
    group: tuple[int, ...]
    """Positions, in the program's order of devices, of the devices in the first one's group; (): all devices, or pairs."""

    def sent(self, devices: int) -> float:
        """Bytes that each device sends in one run of the program, at the least (a ring's; Thakur et al. 2005).

        Args:
          devices: number of devices of the whole program.
        """
        n = len(self.group) or devices
        share = {"all-reduce": 2 * (n - 1) / n, "reduce-scatter": n - 1.0, "collective-permute": 1.0}.get(self.opcode, (n - 1) / n)
        return self.count * self.bytes * share


def collectives(hlo: str) -> list[Collective]:
    """The collectives of a compiled program (`compiled.as_text()`), those of fusions and loops too, each with how often it runs.

    TPU programs wrap collectives in fusions. An asynchronous one is a fusion that starts it, fusions that continue it beside other work,
    and one that ends it and returns its result. A reduce-scatter may be a fusion of an all-reduce and a slice. Each collective is
    counted once, as the operation that the devices perform. A loop without a known number of rounds counts as one round.
    """
    bodies = _computations(hlo)
    every = []
    for name, count in _executions(bodies):
        for instruction in bodies[name]:
            collective = _collective(instruction, bodies)
            if collective is not None:
                every.append(dataclasses.replace(collective, count=count))
    return every


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    type: str
    opcode: str
    rest: str

    def called(self, attribute: str) -> str | None:
        match = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.rest)
        return None if match is None else match[1]


def _computations(hlo: str) -> dict[str, list[_Instruction]]:
    """Instructions of each computation by its name; that of the entry is "ENTRY"."""
    bodies: dict[str, list[_Instruction]] = {}
    body: list[_Instruction] = []
    for line in hlo.splitlines():
        opened = _COMPUTATION.match(line)
        if opened:
            body = bodies.setdefault("ENTRY" if opened[1] else opened[2], [])
        elif written := _INSTRUCTION.match(line):
            body.append(_instruction(written[1], written[2]))
    return bodies


def _instruction(name: str, text: str) -> _Instruction:
    """From `TYPE OPCODE(...), ...`, the type being one array or a tuple of them, with layouts and comments."""
    text = _COMMENT.sub("", text)
    kind = next(_split(text, " "))
    opcode, _, rest = text[len(kind) + 1 :].partition("(")
    return _Instruction(name, kind, opcode, rest)


def _split(text: str, separator: str) -> Iterator[str]:
    """The parts of a text between separators that no bracket encloses."""
    depth, start = 0, 0
    for end, character in enumerate(text):
        depth += character in "({["
        depth -= character in ")}]"
        if character == separator and depth == 0:
            yield text[start:end]
            start = end + 1
    yield text[start:]


def _executions(bodies: dict[str, list[_Instruction]]) -> Iterator[tuple[str, int]]:
    """Every computation that runs as itself (not within a fusion), and how often."""
    waiting = [("ENTRY", 1)]
    while waiting:
        name, count = waiting.pop()
        yield name, count
        for instruction in bodies.get(name, ()):
            if instruction.opcode == "while":
                body, condition = instruction.called("body"), instruction.called("condition")
                assert body is not None
                assert condition is not None
                waiting.append((body, count * _rounds(instruction, bodies[condition])))
            elif instruction.opcode in ("call", "async-start"):
                called = instruction.called("to_apply") or instruction.called("calls")
                if called is not None:
                    waiting.append((called, count))
            elif instruction.opcode == "conditional":
                branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.rest)
                two = [instruction.called(f"{which}_computation") for which in ("true", "false")]
                named = branches[1].replace("%", "").split(", ") if branches else [name for name in two if name]
                waiting += [(branch, count) for branch in named]


def _rounds(loop: _Instruction, condition: list[_Instruction]) -> int:
    """How often a loop's body runs: said outright, or the bound that its counter is compared with; 1 if neither is there."""
    said = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.rest)
    if said:
        return int(said[1])
    bounds = [re.match(r"(\d+)\)", i.rest) for i in condition if i.opcode == "constant" and i.type.startswith("s32[]")]
    return int(bounds[0][1]) if len(bounds) == 1 and bounds[0] is not None else 1


def _collective(instruction: _Instruction, bodies: dict[str, list[_Instruction]]) -> Collective | None:
    """The collective that this instruction is, or that this fusion ends."""
    if instruction.opcode == "fusion":
        inner = [i for i in bodies.get(instruction.called("calls") or "", ()) if i.opcode in _COLLECTIVES]
        if not inner or instruction.type.startswith("("):  # a fusion with a tuple starts or continues one
            return None
        sliced = inner[0].opcode == "all-reduce" and _size(instruction.type) < _size(inner[0].type)
        return _of(instruction.type, "reduce-scatter" if sliced else inner[0].opcode, inner[0].rest)
    opcode = instruction.opcode.removesuffix("-start")
    if opcode not in _COLLECTIVES:
        return None
    kind = instruction.type
    if instruction.opcode.endswith("-start") and opcode in ("all-gather", "collective-permute"):  # operand, result, context
        kind = list(_split(kind[1:-1], ","))[1]
    return _of(kind, opcode, instruction.rest)


def _of(kind: str, opcode: str, attributes: str) -> Collective:
    arrays = tuple((element, tuple(int(n) for n in dims.split(",") if n)) for element, dims in _ARRAY.findall(kind))
    return Collective(opcode, 1, _size(kind), arrays, _group(attributes))


def _size(kind: str) -> int:
    """Bytes of a type."""
    total = 0
    for element, dims in _ARRAY.findall(_LAYOUT.sub("", kind)):
        bits = 8 if element == "pred" else int(re.findall(r"\d+", element)[0])
        total += int(np.prod([int(n) for n in dims.split(",") if n], dtype=np.int64)) * bits // 8
    return total


def _group(attributes: str) -> tuple[int, ...]:
    """The first group of devices: listed, or as `[groups,size]<=[dims]T(axes)`, a transposed range."""
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
    if listed:
        return tuple(int(n) for n in listed[1].split(",") if n)
    ranged = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if ranged is None:
        return ()
    dims = [int(n) for n in ranged[3].split(",")]
    axes = [int(n) for n in ranged[4].split(",")] if ranged[4] else range(len(dims))
    order = np.arange(np.prod(dims)).reshape(dims).transpose(axes).reshape(int(ranged[1]), int(ranged[2]))
    return tuple(int(n) for n in order[0])
