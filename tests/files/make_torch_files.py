"""Makes the `.pt` files beside it, with PyTorch itself: `pip install torch==2.13.0`, then `python tests/files/make_torch_files.py`.

The tests read what stands here; PyTorch is not needed for them.
"""

import argparse
import collections
import pathlib

import torch

HERE = pathlib.Path(__file__).parent


class Trap:
    """Unpickling it leaves a file called was_run in the working folder."""

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("was_run"),)


def main() -> None:
    grid = torch.arange(24).reshape(2, 3, 4)
    dtypes = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 uint16 uint32 uint64 float8_e4m3fn float8_e5m2"
    torch.save({name: (grid % 2).to(getattr(torch, name)) for name in dtypes.split()}, HERE / "dtypes.pt")
    views = torch.arange(12, dtype=torch.float32)
    strided = {"transposed": views.reshape(3, 4).T, "part": views[5:9], "every_other": views[::2], "broadcast": views[:1].expand(3)}
    torch.save(strided | {"scalar": views[7], "none": views[:0].reshape(0, 3), "same": views}, HERE / "views.pt")
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.arange(parameter.numel(), dtype=torch.float32).reshape(parameter.shape) / 8)
    nested = {"ema": module.state_dict(), "model": collections.OrderedDict(module.named_parameters())}
    torch.save(nested, HERE / "module.pt")
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    torch.save({"ema": module.state_dict(), "opt": optimizer.state_dict(), "steps": 7}, HERE / "with_plain_values.pt")
    stats = {"mean": torch.linspace(-1, 1, 32).reshape(1, 32, 1, 1), "std": torch.linspace(0.5, 2, 32).reshape(1, 32, 1, 1)}
    torch.save(stats, HERE / "latents_stats.pt")
    torch.save(stats, HERE / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"mean": torch.zeros(2), "trap": Trap()}, HERE / "malicious.pt")
    torch.save({"ema": stats, "args": argparse.Namespace(lr=1e-4)}, HERE / "with_an_object.pt")
    torch.save(torch.zeros(3), HERE / "bare_tensor.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(HERE / "torchscript.pt"))


if __name__ == "__main__":
    main()
