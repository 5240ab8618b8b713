"""Times mixtures of experts on a GPU at the shape of Qwen3-30B-A3B, beside PyTorch where it is installed.

    python tests/bench/experts_speed.py BUILD/experts_speed [--rows 1 4096 16384]

Prints milliseconds and TFLOP/s a line. PyTorch computes the experts of rows that are sorted already, one after another
with torch.matmul; winnow also routes, sorts, gates and sums.
"""

import argparse
import subprocess

HIDDEN, FFN, EXPERTS, TOP_K = 2048, 768, 128, 8
CALLS = 20


def show(name, rows, milliseconds):
    tflops = rows * TOP_K * 3 * HIDDEN * FFN * 2 / milliseconds / 1e9
    print(f"{name:10} {rows:6} rows {milliseconds:9.3f} ms {tflops:7.1f} TFLOP/s", flush=True)


def time_torch(torch, rows):
    """Milliseconds of both products and the gate, with as many rows for each expert."""

    def random(*shape):
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16) / 32

    gate_up, down = random(EXPERTS, HIDDEN, 2 * FFN), random(EXPERTS, FFN, HIDDEN)
    x = random(max(rows * TOP_K, EXPERTS), HIDDEN)

    def run():
        for expert, of_expert in enumerate(x.chunk(EXPERTS)):
            gate, up = (of_expert @ gate_up[expert]).chunk(2, dim=-1)
            (torch.nn.functional.silu(gate) * up) @ down[expert]

    for _ in range(3):
        run()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(CALLS):
        run()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / CALLS


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("program")
    flags.add_argument("--rows", type=int, nargs="+", default=[1, 4096, 16384])
    flags = flags.parse_args()
    command = [flags.program, *map(str, flags.rows)]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        rows, milliseconds = line.split()
        show("winnow", int(rows), float(milliseconds))
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: nothing to compare with")
        return
    for rows in flags.rows:
        if rows * TOP_K >= EXPERTS:
            show("PyTorch", rows, time_torch(torch, rows))


if __name__ == "__main__":
    main()
