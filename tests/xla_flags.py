"""XLA's flags in the tests, and in the processes that they start. Imports no JAX: it reads them when it is imported."""


def xla_flags(devices: int) -> str:
    """So many CPU devices, and XLA's older emitters of fusions.

    These compile an oracle's program in 4 s instead of 10. `oracle/compiled_exact_test.py` takes the newer ones, which users have.
    """
    return f"--xla_cpu_use_fusion_emitters=false --xla_force_host_platform_device_count={devices}"
